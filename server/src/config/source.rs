//! Where options come from: defaults, the TOML file, the environment, flags; the later wins.
//!
//! Everything is brought into one form, texts with their origin, so that a wrong value is reported with the line or
//! variable that it stands in. What the values mean is decided in `validate.rs`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::table::{self, Kind, ROWS, Row};

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(PathBuf, usize),
    Variable(String),
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => write!(out, "default"),
            Origin::File(path, line) => write!(out, "{}, line {line}", path.display()),
            Origin::Variable(name) => write!(out, "environment variable {name}"),
            Origin::Flag(name) => write!(out, "flag --{name}"),
        }
    }
}

/// The values given for one option: one text, or the elements of a list.
#[derive(Debug, Clone)]
pub struct Given {
    pub values: Vec<String>,
    pub origin: Origin,
}

/// Why the configuration was refused: where, and a sentence.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub origin: Origin,
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::Default => write!(out, "{}", self.message),
            _ => write!(out, "{}: {}", self.origin, self.message),
        }
    }
}

/// All options by name. Always has an entry for every row of the table.
pub type Raw = BTreeMap<&'static str, Given>;

/// The defaults of the table.
pub fn defaults() -> Raw {
    ROWS.iter()
        .map(|row| (row.name, Given { values: split(row, row.default), origin: Origin::Default }))
        .collect()
}

/// Adds what a TOML file says. Errors name the line.
pub fn add_file(raw: &mut Raw, path: &Path) -> Result<(), ConfigError> {
    let bytes = std::fs::read(path).map_err(|error| ConfigError {
        origin: Origin::Default,
        message: format!("cannot read the configuration file {}: {error}", path.display()),
    })?;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let before = String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or_default());
        ConfigError {
            origin: Origin::File(path.to_owned(), before.matches('\n').count() + 1),
            message: "this is not text in UTF-8".to_owned(),
        }
    })?;
    add_text(raw, path, text)
}

/// Adds what a TOML text says; `path` is for messages.
pub fn add_text(raw: &mut Raw, path: &Path, text: &str) -> Result<(), ConfigError> {
    let at = |offset: usize| {
        let line = text.get(..offset).unwrap_or(text).matches('\n').count() + 1;
        Origin::File(path.to_owned(), line)
    };
    let table = DeTable::parse(text).map_err(|error| ConfigError {
        origin: at(error.span().map_or(0, |span| span.start)),
        message: format!("this is not TOML: {}", error.message()),
    })?;
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let origin = at(key.span().start);
        let row = known(key.get_ref(), &origin)?;
        let values = from_toml(row, value.get_ref())
            .ok_or_else(|| ConfigError { origin: origin.clone(), message: wrong_shape(row) })?;
        raw.insert(row.name, Given { values, origin });
    }
    Ok(())
}

/// Adds the variables that start with `WARREN_`. `WARREN_CONFIG` is the caller's.
pub fn add_environment(
    raw: &mut Raw,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(), ConfigError> {
    for (variable, value) in variables {
        // A name that is not text is no option's, and is refused as it is shown.
        let variable = variable.to_string_lossy();
        let Some(name) = variable.strip_prefix("WARREN_") else { continue };
        if name == "CONFIG" {
            continue;
        }
        let origin = Origin::Variable(variable.to_string());
        let row = known(&name.to_ascii_lowercase(), &origin)?;
        let Some(value) = value.to_str() else {
            return Err(ConfigError { origin, message: format!("{} must be text in UTF-8", row.name) });
        };
        raw.insert(row.name, Given { values: split(row, value), origin });
    }
    Ok(())
}

/// Adds flags, each with all its values.
pub fn add_flags(raw: &mut Raw, flags: impl IntoIterator<Item = (&'static str, Vec<String>)>) {
    for (name, values) in flags {
        if let Some(row) = table::row(name) {
            raw.insert(row.name, Given { values, origin: Origin::Flag(row.flag()) });
        }
    }
}

fn known(name: &str, origin: &Origin) -> Result<&'static Row, ConfigError> {
    table::row(name).ok_or_else(|| {
        let hint = match (table::nearest(name), origin) {
            (Some(nearest), Origin::Variable(_)) => {
                format!("; did you mean WARREN_{}?", nearest.to_ascii_uppercase())
            }
            (Some(nearest), _) => format!("; did you mean {nearest}?"),
            (None, _) => "; `warren config` prints all options".to_owned(),
        };
        ConfigError { origin: origin.clone(), message: format!("there is no option {name}{hint}") }
    })
}

/// The sentence for a value that does not fit its option.
pub fn wrong_shape(row: &Row) -> String {
    format!("{} must be {}", row.name, row.shape())
}

/// One text as the values of an option: a list at its commas, without empty elements.
fn split(row: &Row, text: &str) -> Vec<String> {
    match row.kind {
        Kind::List => {
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
        }
        _ => vec![text.to_owned()],
    }
}

fn from_toml(row: &Row, value: &DeValue<'_>) -> Option<Vec<String>> {
    let text = |value: &DeValue<'_>| value.as_str().map(str::to_owned);
    match row.kind {
        Kind::List => match value {
            DeValue::Array(values) => values.iter().map(|value| text(value.get_ref())).collect(),
            // One element may be written without brackets.
            single => text(single).map(|text| vec![text]),
        },
        Kind::Switch => {
            value.as_bool().map(|on| on.to_string()).or_else(|| text(value)).map(|text| vec![text])
        }
        Kind::Number(..) => value
            .as_integer()
            .filter(|number| number.radix() == 10)
            .map(|number| vec![number.as_str().to_owned()]),
        // A room version is easily written without quotes.
        Kind::Choice(_) => text(value)
            .or_else(|| value.as_integer().map(|number| number.as_str().to_owned()))
            .map(|text| vec![text]),
        Kind::Text | Kind::Secret => text(value).map(|text| vec![text]),
    }
}

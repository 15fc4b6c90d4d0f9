//! The `Authorization: X-Matrix …` header (server-server API, "Request Authentication"; RFC 9110, 11.4 and 5.6).

/// The scheme, compared without regard to case.
const SCHEME: &str = "X-Matrix";

/// What one header claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XMatrix {
    pub origin: String,
    /// Absent from servers older than v1.3.
    pub destination: Option<String>,
    pub key_id: String,
    pub signature: String,
}

/// What a header's value says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    XMatrix(XMatrix),
    /// Another scheme, which is not for this place.
    OtherScheme,
    Malformed,
}

/// Reads a header's value.
pub fn parse(value: &str) -> Header {
    let value = value.trim_matches([' ', '\t']);
    let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Header::OtherScheme;
    }
    parameters(rest).map_or(Header::Malformed, Header::XMatrix)
}

fn parameters(text: &str) -> Option<XMatrix> {
    let (mut origin, mut destination, mut key_id, mut signature) = (None, None, None, None);
    let mut rest = text;
    loop {
        // An empty element of a list counts for nothing.
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            break;
        }
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_end_matches([' ', '\t']);
        if name.is_empty() || !name.bytes().all(is_token) {
            return None;
        }
        let (value, after) = value(after.trim_start_matches([' ', '\t']))?;
        rest = after.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
        let slot = match name.to_ascii_lowercase().as_str() {
            "origin" => &mut origin,
            "destination" => &mut destination,
            "key" => &mut key_id,
            // The specification's examples say the one, its list of parameters the other.
            "sig" | "signature" => &mut signature,
            _ => continue,
        };
        // A parameter that stands twice could be read either way by whoever looks at it before us.
        if slot.replace(value).is_some() {
            return None;
        }
    }
    Some(XMatrix { origin: origin?, destination, key_id: key_id?, signature: signature? })
}

/// The value at the start of `text`, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        // Servers of old write colons without quotes.
        let end = text.bytes().position(|byte| !is_token(byte) && byte != b':').unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (!value.is_empty()).then(|| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(chars.next()?),
            other => value.push(other),
        }
    }
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Option<(String, Option<String>, String, String)> {
        match parse(value) {
            Header::XMatrix(XMatrix { origin, destination, key_id, signature }) => {
                Some((origin, destination, key_id, signature))
            }
            _ => None,
        }
    }

    fn expected(
        origin: &str,
        destination: Option<&str>,
        key: &str,
        sig: &str,
    ) -> Option<(String, Option<String>, String, String)> {
        Some((origin.to_owned(), destination.map(str::to_owned), key.to_owned(), sig.to_owned()))
    }

    #[test]
    fn the_forms_that_servers_write() {
        let plain = r#"X-Matrix origin="a.example",destination="b.example:80",key="ed25519:k1",sig="AB+/c""#;
        assert_eq!(read(plain), expected("a.example", Some("b.example:80"), "ed25519:k1", "AB+/c"));
        let old = r#"X-Matrix origin=a.example:8448,key="ed25519:k1",sig="AB""#;
        assert_eq!(read(old), expected("a.example:8448", None, "ed25519:k1", "AB"));
        let spaced = "x-matrix   Key = ed25519:k1 ,\t SIG=\"AB\",, more=\"x,y\" , Origin=\"[::1]:80\" ,";
        assert_eq!(read(spaced), expected("[::1]:80", None, "ed25519:k1", "AB"));
        let escaped = r#"X-Matrix origin="a\.exa\mple",key="ed25519:k\"1",sig=AB"#;
        assert_eq!(read(escaped), expected("a.example", None, "ed25519:k\"1", "AB"));
        assert_eq!(read("X-Matrix origin=a,key=k:1,signature=s"), expected("a", None, "k:1", "s"));
    }

    #[test]
    fn what_is_none() {
        for malformed in [
            "X-Matrix",
            "X-Matrix origin=a,key=k",
            "X-Matrix origin=a,key=k,sig",
            "X-Matrix origin=a,key=k,sig=",
            r#"X-Matrix origin="a,key=k,sig=s"#,
            r#"X-Matrix origin="a\"#,
            r#"X-Matrix origin="a"b,key=k,sig=s"#,
            "X-Matrix origin=a key=k,sig=s",
            "X-Matrix origin=a,origin=b,key=k,sig=s",
            "X-Matrix =a,origin=a,key=k,sig=s",
            "X-Matrix origin=a/b,key=k,sig=s",
        ] {
            assert_eq!(parse(malformed), Header::Malformed, "{malformed}");
        }
        assert_eq!(parse("Bearer abc"), Header::OtherScheme);
        assert_eq!(parse(""), Header::OtherScheme);
    }
}

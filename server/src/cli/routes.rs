//! `warren routes`: the table of endpoints as tab-separated text, for people, documentation and tests.

/// One line per endpoint: method, path, auth, rate class, all paths that it is served under.
pub fn table() -> String {
    let mut text = String::from("method\tpath\tauth\trate\tserved_paths\n");
    for endpoint in crate::tables().into_iter().flat_map(|table| table.iter()) {
        let paths: Vec<_> = endpoint.paths().collect();
        let (method, auth, rate) = (&endpoint.method, endpoint.auth, endpoint.rate);
        text.push_str(&format!("{method}\t{}\t{auth:?}\t{rate:?}\t{}\n", endpoint.path, paths.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    /// Both files are made from tables of the program; `UPDATE_DOCS=1` writes them anew.
    #[test]
    fn the_documentation_lists_every_endpoint_and_option() {
        let mut endpoints = String::from("# Endpoints\n\nMade from `warren routes`.\n\n");
        for (number, line) in super::table().lines().enumerate() {
            endpoints.push_str(&format!("| {} |\n", line.replace('\t', " | ")));
            if number == 0 {
                endpoints.push_str("|---|---|---|---|---|\n");
            }
        }
        for (name, text) in [("endpoints.md", endpoints), ("warren.toml", crate::config::table::example())] {
            let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
            if std::env::var_os("UPDATE_DOCS").is_some() {
                std::fs::write(&path, &text).unwrap();
            }
            assert!(
                std::fs::read_to_string(&path).unwrap() == text,
                "docs/{name} differs: run with UPDATE_DOCS=1"
            );
        }
    }
}

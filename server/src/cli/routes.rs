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
mod tests;

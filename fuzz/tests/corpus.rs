//! Replays every corpus through its target.

use std::path::Path;

#[test]
fn no_input_of_a_corpus_breaks_a_promise() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in warren_fuzz::TARGETS {
        let folder = std::fs::read_dir(corpora.join(name)).expect("every target has a corpus");
        let mut inputs = 0;
        for entry in folder {
            let path = entry.expect("a readable folder").path();
            // Shown only when the test fails.
            println!("{}", path.display());
            let input = std::fs::read(path).expect("a readable file");
            for end in [input.len(), input.len() / 2, input.len().saturating_sub(1)] {
                target(input.get(..end).unwrap_or_default());
            }
            inputs += 1;
        }
        assert!(inputs > 0, "the corpus of {name} is empty");
    }
}

#[test]
fn every_corpus_and_every_search_has_its_target() {
    let names: Vec<String> = warren_fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let stems = |folder: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let entries =
            std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").path());
        let mut stems: Vec<String> =
            entries.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
        stems.sort();
        stems
    };
    assert_eq!(stems("corpus"), names);
    assert_eq!(stems("libfuzzer/fuzz_targets"), names);
}

//! `docs/figures.md` leads from each figure to files, drawings and tests that are there, and every field
//! of the figures stands in its code under its own name.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Fields of FIG. 4 to 7, as the sheets name them.
const FIELDS: [(&str, &[&str]); 4] = [
    (
        "4",
        &[
            "blk5_id",
            "blk5_dev_id",
            "blk5_seg_size",
            "blk5_version",
            "blk5_time_id",
            "blk5_tot_seg_num",
            "blk5_process_id_table_ptr",
            "blk5_secondary_device_entrynum",
            "blk5_start_process_segment_ptr",
            "blk5_max_connections",
            "blk5_mast_sec_start_ptr",
            "blk5_mast_sec_start_segment_ptr",
            "blk5_ptr_seg_per_process",
            "blk5_maxptr",
            "blk5_unix_filename",
        ],
    ),
    (
        "5",
        &[
            "pro_process_id",
            "pro_flag_process",
            "pro_con_rc",
            "pro_requestor",
            "pro_requestor_password",
            "pro_requestor_type",
            "pro_requestee",
            "pro_requestee_type",
            "pro_dtd",
            "InitM",
        ],
    ),
    ("6", &["sec_dev_id", "sec_str_seg_ptr", "sec_seg_number_for_device", "sec_start_segment_number"]),
    (
        "7",
        &[
            "ptr_process_segment_ptr",
            "ptr_process_segment_flg",
            "ptr_process_block_seq",
            "ptr_process_req_id",
            "ptr_process_blk_read",
        ],
    ),
];

/// One row of the table: the things in backquotes of each column.
struct Row {
    figure: String,
    code: Vec<String>,
    drawings: Vec<String>,
    tests: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the workspace").to_owned()
}

fn text_of(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn rows() -> Vec<Row> {
    let page = text_of("docs/figures.md");
    let lines = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| figure"));
    let rows = lines.map(|line| {
        let cells: Vec<&str> = line.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect();
        let [figure, _, code, drawings, tests] = cells[..] else { panic!("five columns: {line}") };
        let figure = figure.to_owned();
        Row { figure, code: quoted(code), drawings: quoted(drawings), tests: quoted(tests) }
    });
    rows.collect()
}

/// The names by which the headings of a page can be linked to.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let kept = line.trim_start_matches('#').trim().to_lowercase();
        let kept = kept.chars().filter(|sign| sign.is_alphanumeric() || " -_".contains(*sign));
        kept.map(|sign| if sign == ' ' { '-' } else { sign }).collect()
    };
    headings.map(anchor).collect()
}

fn is_word(text: &str, word: &str) -> bool {
    let is_part = |sign: char| sign.is_alphanumeric() || sign == '_';
    text.match_indices(word).any(|(at, _)| {
        let after = text[at + word.len()..].chars().next();
        !text[..at].ends_with(is_part) && !after.is_some_and(is_part)
    })
}

#[test]
fn every_figure_has_a_row() {
    let figures: Vec<String> = rows().into_iter().map(|row| row.figure).collect();
    let expected: Vec<String> = (1..=16)
        .map(|number| if number == 10 { "10A, 10B".to_owned() } else { number.to_string() })
        .collect();
    assert_eq!(figures, expected);
}

#[test]
fn every_file_drawing_and_test_is_there() {
    for row in rows() {
        let named = [&row.code, &row.drawings, &row.tests];
        assert!(named.iter().all(|cell| !cell.is_empty()), "FIG. {}", row.figure);
        for file in &row.code {
            assert!(root().join(file).is_file(), "FIG. {}: no file {file}", row.figure);
        }
        for drawing in &row.drawings {
            let (page, anchor) = drawing.split_once('#').expect("page#heading");
            assert!(anchors(&text_of(page)).contains(anchor), "FIG. {}: no heading {drawing}", row.figure);
        }
        for test in &row.tests {
            let (file, function) = test.split_once("::").expect("file::function");
            let is_there = text_of(file).contains(&format!("fn {function}("));
            assert!(is_there, "FIG. {}: no test {test}", row.figure);
        }
    }
}

#[test]
fn every_field_stands_in_the_code_of_its_figure() {
    let rows = rows();
    for (figure, fields) in FIELDS {
        let row = rows.iter().find(|row| row.figure == figure).expect("every figure has a row");
        let code: String = row.code.iter().map(|file| text_of(file)).collect();
        for field in fields {
            assert!(is_word(&code, field), "FIG. {figure}: {field} is not in {:?}", row.code);
        }
    }
}

#[test]
fn every_link_between_the_pages_leads_somewhere() {
    let folder = fs::read_dir(root().join("docs")).expect("the pages");
    let in_docs = folder.map(|entry| format!("docs/{}", entry.expect("a page").file_name().display()));
    let pages = in_docs.chain(["README.md".to_owned(), "CHANGELOG.md".to_owned()]);
    for page in pages.filter(|page| page.ends_with(".md")) {
        let text = text_of(&page);
        let here = Path::new(&page).parent().expect("a relative path").to_owned();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file =
                if file.is_empty() { page.clone() } else { here.join(file).to_string_lossy().into_owned() };
            assert!(root().join(&file).exists(), "{page}: {target} is not there");
            let leads = anchor.is_empty() || anchors(&text_of(&file)).contains(anchor);
            assert!(leads, "{page}: {target} has no such heading");
        }
    }
}

#[test]
fn every_test_that_a_promise_names_is_there() {
    let page = text_of("docs/testing.md");
    let (_, section) = page.split_once("## Faults and promises").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("a section after it");
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| fault |"));
    let mut named = 0;
    for row in rows.clone() {
        let tests = row.split('`').skip(1).step_by(2).filter(|word| word.contains(".rs"));
        for test in tests {
            let (file, function) = test.split_once("::").unwrap_or((test, ""));
            assert!(root().join(file).is_file(), "no file {file}");
            let is_there = function.is_empty() || text_of(file).contains(&format!("fn {function}("));
            assert!(is_there, "no test {test}");
            named += 1;
        }
        assert!(row.contains(".rs") || row.contains("swarm"), "no test in {row}");
    }
    assert_eq!(rows.count(), 24, "one row for each fault that is promised something");
    assert!(named > 40, "{named} tests are named");
}

//! `ctl table`: the command table, for people and for programs. Not here: the rows (`multipath::out_of_band`).

use std::fmt::Write;

use multipath::out_of_band::command_table::{Parameter, Row, UserRows, Words, shipped};
use serde_json::{Value, json};

use crate::args::ctl::CtlTableArgs;
use crate::{escape, section_view};

/// Rows are explained where no more than so many are asked for.
const EXPLAINED_MAX: usize = 12;

/// Columns of a name; the rest of a row with a longer one goes on below it.
const NAME_COLUMNS: usize = 44;
/// How far in explanations stand, in steps of two columns.
const INDENT: usize = 5;

/// What is asked for of the rows of a user and the shipped ones.
pub(super) fn text(args: &CtlTableArgs, user: &UserRows) -> String {
    let word = args.word.as_deref().map(str::to_lowercase);
    let is_wanted = |row: &&Row| word.as_deref().is_none_or(|word| speaks_of(row, word));
    let rows: Vec<&Row> =
        user.rows().iter().chain(shipped().map(|row| -> &Row { row })).filter(is_wanted).collect();
    if args.json {
        let rows: Vec<Value> = rows.iter().map(|row| value(row)).collect();
        return json!({ "version": 1, "rows": rows }).to_string() + "\n";
    }
    if rows.is_empty() {
        return "no row has this; a command without a row goes over its named path, once\n".to_owned();
    }
    table(&rows)
}

fn speaks_of(row: &Row, word: &str) -> bool {
    let (first, last) = row.opcodes;
    let digits = word.strip_prefix("0x").unwrap_or(word).trim_end_matches('h');
    let is_opcode = digits.len() == 2
        && u8::from_str_radix(digits, 16).is_ok_and(|opcode| (first..=last).contains(&opcode));
    is_opcode || row.name.to_lowercase().contains(word) || row.class.word() == word
}

fn table(rows: &[&Row]) -> String {
    let mut text = format!("{:<9}{:<NAME_COLUMNS$}{:<15}{}\n", "OPCODE", "COMMAND", "CLASS", "AGAIN");
    for row in rows {
        let (mut name, class) = (escape::one_line(&row.name), row.class.word());
        let mut opcode = opcode(row);
        if name.chars().count() >= NAME_COLUMNS {
            let _ = writeln!(text, "{opcode:<9}{name}");
            (opcode, name) = (String::new(), String::new());
        }
        let _ = writeln!(text, "{opcode:<9}{name:<NAME_COLUMNS$}{class:<15}{}", row.repeat.word());
        if rows.len() <= EXPLAINED_MAX {
            explain(&mut text, row);
        }
    }
    text
}

fn explain(text: &mut String, row: &Row) {
    let verify = row.verify.name().map(|name| format!("whether it ran: {name}"));
    let access = format!("least access state of the port: {}", row.access.word());
    let lines = [Some(row.reason.to_owned()).filter(|reason| !reason.is_empty()), verify, Some(access)];
    for line in lines.iter().flatten() {
        section_view::push_line(text, INDENT, line);
    }
}

fn opcode(row: &Row) -> String {
    let mark = match row.words {
        Words::Scsi => "",
        Words::NvmeAdmin => "nvme ",
        Words::NvmeIo => "io ",
        Words::Task => "task ",
    };
    match row.opcodes {
        (first, last) if first == last => format!("{mark}{first:02x}"),
        (first, last) => format!("{mark}{first:02x}-{last:02x}"),
    }
}

fn value(row: &Row) -> Value {
    let bits: Vec<Value> = row
        .bits
        .iter()
        .filter(|bits| bits.mask != 0)
        .map(|bits| json!({ "at": bits.at, "mask": bits.mask, "value": bits.value }))
        .collect();
    let parameter = match row.parameter {
        Parameter::Any => Value::Null,
        Parameter::ModePage(page) => json!({ "mode_page": page }),
        Parameter::NoNewKey => "no new key".into(),
    };
    json!({
        "name": row.name,
        "words": row.words.word(),
        "opcode_first": row.opcodes.0,
        "opcode_last": row.opcodes.1,
        "bits": bits,
        "parameter": parameter,
        "class": row.class.word(),
        "repeat": row.repeat.word(),
        "verify": row.verify.name(),
        "access": row.access.word(),
        "reason": row.reason,
        "is_of_user": row.is_of_user,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(word: Option<&str>, json: bool) -> String {
        text(&CtlTableArgs { word: word.map(str::to_owned), json }, &UserRows::default())
    }

    #[test]
    fn the_whole_table_fits_80_columns() {
        let whole = shown(None, false);
        assert!(whole.lines().count() > shipped().count());
        for line in whole.lines().chain(shown(Some("release"), false).lines()) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn words_and_opcodes_choose_rows() {
        let reserve = shown(Some("5f"), false);
        assert!(reserve.contains("PREEMPT AND ABORT") && !reserve.contains("INQUIRY"), "{reserve}");
        assert!(shown(Some("Inquiry"), false).contains("INQUIRY standard"));
        assert!(shown(Some("no such thing"), false).contains("no row has this"));
        let rows: Value = serde_json::from_str(&shown(Some("a0"), true)).unwrap();
        assert!(rows["rows"].as_array().unwrap().iter().any(|row| row["name"] == "REPORT LUNS"), "{rows}");
    }
}

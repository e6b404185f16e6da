//! Puts mutants of a source file behind switches, so that one build holds all of them.
//!
//! ```text
//! a < b         (if mutant(1) { (a) <= (b) } else if mutant(2) { (a) > (b) } else { a < b })
//! fn f() { … }  fn f() { if mutant(3) { return Default::default(); } … }
//! A => …        A if !mutant(4) => …
//! ```
//!
//! What holds: with all switches off the file says what it said before; one mutant is on at a time, so other
//! mutants need not be in its text. A mutant in a constant or before a `let` of a chain cannot stand behind a
//! switch and is given back. Not here: which mutants there are (cargo-mutants says that), and running them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// One mutant, as cargo-mutants lists it.
#[derive(Clone, Debug)]
pub(crate) struct Mutant {
    /// From 1; the value of the switch.
    pub(crate) number: u32,
    /// File, below the workspace.
    pub(crate) file: String,
    /// Place and change, in words.
    pub(crate) name: String,
    /// Kind of the change.
    pub(crate) genre: String,
    /// What comes in place of a body, an operator or a guard.
    pub(crate) replacement: String,
    /// Byte in the file where what is changed begins.
    pub(crate) start: usize,
}

/// What stands in place of a part of the text.
#[derive(Debug)]
enum Spot {
    /// Nothing is replaced: a body that may return at once.
    Entry(Vec<(u32, String)>),
    /// An expression, and what may stand there.
    Choice(Vec<(u32, String)>),
    /// The guard of an arm: mutants that delete the arm, and that make the guard true or false.
    Guard { deleted: Option<u32>, always: Option<u32>, never: Option<u32> },
    /// An arm without a guard that may be deleted.
    NewGuard(u32),
}

/// Opens the text of a mutant.
fn open_mark(number: u32) -> String {
    format!("/*m{number}*/")
}

/// Closes the text of a mutant.
fn close_mark(number: u32) -> String {
    format!("/*e{number}*/")
}

/// The mutant in whose text a byte of a switched file lies.
pub(crate) fn mutant_at(text: &str, byte: usize) -> Option<u32> {
    let before = text.get(..byte)?;
    let opened = before.rfind("/*m")?;
    let number = before[opened + 3..].split("*/").next()?.parse().ok()?;
    let is_open = !before[opened..].contains(&close_mark(number));
    is_open.then_some(number)
}

/// The text with mutants behind switches, and those that cannot be.
pub(crate) fn switched(text: &str, mutants: &[&Mutant]) -> Result<(String, Vec<u32>), syn::Error> {
    let file = syn::parse_file(text)?;
    let mut at: BTreeMap<usize, Vec<&Mutant>> = BTreeMap::new();
    for mutant in mutants {
        at.entry(mutant.start).or_default().push(mutant);
    }
    let mut finder = Finder { text, mutants: at, spots: Vec::new(), constants: 0 };
    finder.visit_file(&file);
    let left = finder.mutants.into_values().flatten().map(|mutant| mutant.number).collect();
    let mut spots = finder.spots;
    spots.sort_by_key(|(range, spot)| (range.start, !matches!(spot, Spot::Entry(_)), Reverse(range.end)));
    let mut spots = spots.into_iter().peekable();
    Ok((render(text, 0..text.len(), &mut spots), left))
}

type Spots = std::iter::Peekable<std::vec::IntoIter<(Range<usize>, Spot)>>;

/// A part of the text with all spots in it.
fn render(text: &str, part: Range<usize>, spots: &mut Spots) -> String {
    let (mut out, mut at) = (String::new(), part.start);
    while let Some((range, spot)) = spots.next_if(|(range, _)| range.start < part.end) {
        out.push_str(&text[at..range.start]);
        at = range.end;
        let inner = if range.is_empty() { String::new() } else { render(text, range, spots) };
        out.push_str(&with_switch(&spot, &inner));
    }
    out.push_str(&text[at..part.end]);
    out
}

fn is_on(number: u32) -> String {
    format!("::storage_mapping::mutant({number})")
}

fn with_switch(spot: &Spot, original: &str) -> String {
    let marked = |number: u32, text: &str| format!("{} {text} {}", open_mark(number), close_mark(number));
    let mut out = String::new();
    match spot {
        Spot::Entry(returns) => {
            for (number, value) in returns {
                let _ = write!(out, "if {} {{ return {}; }} ", is_on(*number), marked(*number, value));
            }
        }
        Spot::Choice(choices) => {
            out.push('(');
            for (number, text) in choices {
                let _ = write!(out, "if {} {{ {} }} else ", is_on(*number), marked(*number, text));
            }
            let _ = write!(out, "{{ {original} }})");
        }
        Spot::Guard { deleted, always, never } => {
            let on = |number: &Option<u32>| number.map_or("false".to_owned(), is_on);
            let (deleted, always, never) = (on(deleted), on(always), on(never));
            out = format!("!{deleted} && ({always} || (!{never} && ({original})))");
        }
        Spot::NewGuard(number) => out = format!(" if !{}", is_on(*number)),
    }
    out
}

struct Finder<'a> {
    text: &'a str,
    /// By their first byte; what is found is taken out.
    mutants: BTreeMap<usize, Vec<&'a Mutant>>,
    spots: Vec<(Range<usize>, Spot)>,
    /// Constants that this is in.
    constants: u32,
}

impl<'a> Finder<'a> {
    fn take(&mut self, start: usize, genre: &str) -> Vec<&'a Mutant> {
        if self.constants > 0 {
            return Vec::new();
        }
        let Some(here) = self.mutants.get_mut(&start) else { return Vec::new() };
        let (taken, left) = here.drain(..).partition(|mutant: &&Mutant| mutant.genre == genre);
        *here = left;
        taken
    }

    fn source(&self, part: &impl Spanned) -> &'a str {
        &self.text[part.span().byte_range()]
    }

    fn body(&mut self, signature: &syn::Signature, block: &syn::Block) {
        // Another value of an opaque type would be of another type.
        let is_opaque = self.source(&signature.output).contains("impl ");
        let Some(first) = block.stmts.first().filter(|_| !is_opaque && signature.constness.is_none()) else {
            return;
        };
        let start = first.span().byte_range().start;
        let mutants = self.take(start, "FnValue");
        if !mutants.is_empty() {
            let returns = mutants.iter().map(|mutant| (mutant.number, mutant.replacement.clone()));
            self.spots.push((start..start, Spot::Entry(returns.collect())));
        }
    }

    fn choose(&mut self, whole: &impl Spanned, choices: Vec<(u32, String)>) {
        if !choices.is_empty() {
            self.spots.push((whole.span().byte_range(), Spot::Choice(choices)));
        }
    }

    fn inside_constant(&mut self, is_constant: bool, visit: impl FnOnce(&mut Self)) {
        self.constants += u32::from(is_constant);
        visit(self);
        self.constants -= u32::from(is_constant);
    }
}

/// Whether an operand is a `let`, or a chain with one.
fn has_let(expression: &syn::Expr) -> bool {
    match expression {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.body(&item.sig, &item.block);
        self.inside_constant(item.sig.constness.is_some(), |finder| visit::visit_item_fn(finder, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.body(&item.sig, &item.block);
        self.inside_constant(item.sig.constness.is_some(), |finder| visit::visit_impl_item_fn(finder, item));
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.body(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.inside_constant(true, |finder| visit::visit_item_const(finder, item));
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.inside_constant(true, |finder| visit::visit_impl_item_const(finder, item));
    }

    fn visit_trait_item_const(&mut self, item: &'ast syn::TraitItemConst) {
        self.inside_constant(true, |finder| visit::visit_trait_item_const(finder, item));
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.inside_constant(true, |finder| visit::visit_item_static(finder, item));
    }

    fn visit_type_array(&mut self, array: &'ast syn::TypeArray) {
        self.inside_constant(true, |finder| visit::visit_type_array(finder, array));
    }

    fn visit_expr_repeat(&mut self, repeat: &'ast syn::ExprRepeat) {
        self.visit_expr(&repeat.expr);
        self.inside_constant(true, |finder| finder.visit_expr(&repeat.len));
    }

    fn visit_expr_binary(&mut self, binary: &'ast syn::ExprBinary) {
        if !has_let(&binary.left) && !has_let(&binary.right) {
            let (left, right) = (self.source(&binary.left), self.source(&binary.right));
            let mutants = self.take(binary.op.span().byte_range().start, "BinaryOperator");
            let text = |mutant: &&Mutant| format!("({left}) {} ({right})", mutant.replacement);
            let choices = mutants.iter().map(|mutant| (mutant.number, text(mutant))).collect();
            self.choose(binary, choices);
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'ast syn::ExprUnary) {
        let operand = self.source(&unary.expr).to_owned();
        let mutants = self.take(unary.op.span().byte_range().start, "UnaryOperator");
        let choices = mutants.iter().map(|mutant| (mutant.number, operand.clone())).collect();
        self.choose(unary, choices);
        visit::visit_expr_unary(self, unary);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let deleted =
            self.take(arm.span().byte_range().start, "MatchArm").first().map(|mutant| mutant.number);
        if let Some((_, guard)) = &arm.guard {
            let range = guard.span().byte_range();
            let guards = self.take(range.start, "MatchArmGuard");
            let find = |value| guards.iter().find(|mutant| mutant.replacement == value).map(|m| m.number);
            let (always, never) = (find("true"), find("false"));
            if deleted.or(always).or(never).is_some() {
                self.spots.push((range, Spot::Guard { deleted, always, never }));
            }
        } else if let Some(number) = deleted {
            let end = arm.pat.span().byte_range().end;
            self.spots.push((end..end, Spot::NewGuard(number)));
        }
        visit::visit_arm(self, arm);
    }

    fn visit_expr_struct(&mut self, made: &'ast syn::ExprStruct) {
        if made.rest.is_some() {
            let whole = made.span().byte_range();
            let mut choices = Vec::new();
            for field in &made.fields {
                let range = field.span().byte_range();
                for mutant in self.take(range.start, "StructField") {
                    let after = self.text[range.end..whole.end].trim_start().trim_start_matches(',');
                    let text = format!("{}{after}", &self.text[whole.start..range.start]);
                    choices.push((mutant.number, text));
                }
            }
            self.choose(made, choices);
        }
        visit::visit_expr_struct(self, made);
    }
}

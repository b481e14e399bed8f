//! What of the language a template may use, decided on its text before any of it runs.
//!
//! The engine bounds texts and steps by its fuel. What it does not bound is bounded here:
//! - Its parser calls itself for each `not`, `-` and `elif`, and builds a tree as deep as a chain of `~` or `|` is long.
//!   A long enough one overflows the stack, which ends the process. So words are counted first, on the tokens.
//! - Lists of lists can be compared or printed in a time that is exponential in their depth. There are none: every
//!   value is a text, a number, true, false or none, and the one list is that of a loop.
//! - A comparison costs one step however long the texts are. So one side of it is a text of the template, which is short.
//! - What is not on the list here does not exist, whatever a later version of the engine adds.

use std::collections::BTreeSet;

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt, UnaryOpKind};
use minijinja::machinery::{Span, Token, parse, tokenize};
use minijinja::value::ValueKind;

use super::{KEYS, filters, syntax};
use crate::fault::At;
use crate::{Fault, MAX_TEMPLATE};

/// The most words and signs in one tag. It bounds how deep an expression can be.
const MAX_WORDS: usize = 128;

/// The most brackets in one another.
const MAX_BRACKETS: usize = 16;

/// The most loops and conditions in one another.
const MAX_NESTED: usize = 16;

/// The most `elif` in all: each is a level of the tree.
const MAX_ELIF: usize = 64;

/// What there is of a loop.
const LOOP: [&str; 5] = ["first", "index", "index0", "last", "length"];

/// Whether a template uses only what it may, and only keys that there are.
pub(crate) fn check(text: &str, is_key: &dyn Fn(&str) -> bool) -> Result<(), Fault> {
    if text.len() > MAX_TEMPLATE {
        return Err(Fault::LongTemplate);
    }
    tokens(text)?;
    let tree = parse(text, "", syntax()).map_err(|error| super::fault(&error))?;
    Walk { is_key, assigned: BTreeSet::new(), loops: 0 }.stmt(&tree)
}

fn tokens(text: &str) -> Result<(), Fault> {
    let (mut words, mut brackets, mut nested, mut elifs, mut opens) = (0, 0usize, 0usize, 0, false);
    let mut last = At(Some(1));
    for token in tokenize(text, false, syntax()) {
        // Such an error has no line of its own.
        let (token, span) = token.map_err(|_| Fault::Syntax(last))?;
        last = At(Some(span.end_line.into()));
        match token {
            Token::TemplateData(_) | Token::VariableEnd | Token::BlockEnd => continue,
            Token::VariableStart => (words, brackets) = (0, 0),
            Token::BlockStart => (words, brackets, opens) = (0, 0, true),
            token => {
                words += 1;
                match token {
                    Token::Ident("if" | "for") if opens => nested += 1,
                    Token::Ident("endif" | "endfor") if opens => nested = nested.saturating_sub(1),
                    Token::Ident("elif") if opens => elifs += 1,
                    Token::Ident("else" | "set") if opens => {}
                    Token::ParenOpen | Token::BracketOpen | Token::BraceOpen if !opens => brackets += 1,
                    Token::ParenClose | Token::BracketClose | Token::BraceClose if !opens => {
                        brackets = brackets.saturating_sub(1);
                    }
                    _ if opens => {
                        return Err(at(span, "only if, elif, else, for, set and raw are available"));
                    }
                    _ => {}
                }
                opens = false;
            }
        }
        if words > MAX_WORDS {
            return Err(at(span, "more than 128 words and signs in one tag"));
        }
        if brackets > MAX_BRACKETS {
            return Err(at(span, "more than 16 brackets in one another"));
        }
        if nested > MAX_NESTED {
            return Err(at(span, "more than 16 loops and conditions in one another"));
        }
        if elifs > MAX_ELIF {
            return Err(at(span, "more than 64 times elif"));
        }
    }
    Ok(())
}

fn at(span: Span, what: &'static str) -> Fault {
    Fault::Unsupported(line(span), what)
}

fn line(span: Span) -> At {
    At(Some(span.start_line.into()))
}

struct Walk<'a> {
    is_key: &'a dyn Fn(&str) -> bool,
    /// Names that the template gives values itself. Where they hold is for the engine to say.
    assigned: BTreeSet<String>,
    loops: usize,
}

impl Walk<'_> {
    fn all(&mut self, stmts: &[Stmt<'_>]) -> Result<(), Fault> {
        stmts.iter().try_for_each(|stmt| self.stmt(stmt))
    }

    fn stmt(&mut self, stmt: &Stmt<'_>) -> Result<(), Fault> {
        match stmt {
            Stmt::Template(template) => self.all(&template.children),
            Stmt::EmitRaw(_) => Ok(()),
            Stmt::EmitExpr(emit) => self.expr(&emit.expr),
            Stmt::IfCond(cond) => {
                self.expr(&cond.expr)?;
                self.all(&cond.true_body)?;
                self.all(&cond.false_body)
            }
            Stmt::Set(set) => {
                self.expr(&set.expr)?;
                self.assign(&set.target)
            }
            Stmt::ForLoop(each) => {
                if each.recursive {
                    return Err(at(each.span(), "a recursive loop is not available"));
                }
                match &each.iter {
                    Expr::List(list) => list.items.iter().try_for_each(|item| self.expr(item))?,
                    iter if is_keys(iter) => {}
                    iter => {
                        return Err(at(iter.span(), "a loop goes over keys or over a list written there"));
                    }
                }
                self.assign(&each.target)?;
                self.loops += 1;
                each.filter_expr.iter().try_for_each(|filter| self.expr(filter))?;
                self.all(&each.body)?;
                self.loops -= 1;
                self.all(&each.else_body)
            }
            Stmt::SetBlock(set) => Err(at(set.span(), "set takes a value, not a block")),
            Stmt::Do(call) => Err(at(call.span(), "calls are not available")),
            Stmt::WithBlock(with) => Err(at(with.span(), "with is not available: use set")),
            Stmt::AutoEscape(escape) => Err(at(escape.span(), "autoescape is not available")),
            Stmt::FilterBlock(filter) => Err(at(filter.span(), "a filter stands behind a value, after |")),
            #[allow(
                unreachable_patterns,
                reason = "which statements there are is a matter of the engine's features"
            )]
            _ => Err(Fault::Unsupported(At(None), "a statement that is not available")),
        }
    }

    fn assign(&mut self, target: &Expr<'_>) -> Result<(), Fault> {
        match target {
            Expr::Var(name) if name.id == KEYS || name.id == "loop" => {
                Err(at(name.span(), "keys and loop cannot be given another value"))
            }
            Expr::Var(name) => {
                self.assigned.insert(name.id.to_owned());
                Ok(())
            }
            other => Err(at(other.span(), "only a single name can be given a value")),
        }
    }

    fn expr(&mut self, expr: &Expr<'_>) -> Result<(), Fault> {
        match expr {
            Expr::Var(name) if name.id == KEYS => {
                Err(at(name.span(), "keys stands in a loop, after in, or before [ ]"))
            }
            Expr::Var(name) if name.id == "loop" => {
                Err(at(name.span(), "loop stands before a dot; a key of that name is keys[\"loop\"]"))
            }
            Expr::Var(name) => self.known(name.id, name.span()),
            Expr::Const(constant) => match constant.value.kind() {
                ValueKind::String | ValueKind::Number | ValueKind::Bool | ValueKind::None => Ok(()),
                _ => Err(at(constant.span(), LIST)),
            },
            Expr::UnaryOp(op) => match op.op {
                UnaryOpKind::Not => self.expr(&op.expr),
                UnaryOpKind::Neg => Err(at(op.span(), ARITHMETIC)),
            },
            Expr::BinOp(op) => match op.op {
                BinOpKind::In if is_keys(&op.right) => self.expr(&op.left),
                BinOpKind::In => Err(at(op.right.span(), "in looks only into keys")),
                BinOpKind::Eq
                | BinOpKind::Ne
                | BinOpKind::Lt
                | BinOpKind::Lte
                | BinOpKind::Gt
                | BinOpKind::Gte
                    if !is_const(&op.left) && !is_const(&op.right) =>
                {
                    Err(at(op.span(), "a value is compared with a text or number that is written there"))
                }
                BinOpKind::Eq
                | BinOpKind::Ne
                | BinOpKind::Lt
                | BinOpKind::Lte
                | BinOpKind::Gt
                | BinOpKind::Gte
                | BinOpKind::ScAnd
                | BinOpKind::ScOr
                | BinOpKind::Concat => {
                    self.expr(&op.left)?;
                    self.expr(&op.right)
                }
                BinOpKind::Add
                | BinOpKind::Sub
                | BinOpKind::Mul
                | BinOpKind::Div
                | BinOpKind::FloorDiv
                | BinOpKind::Rem
                | BinOpKind::Pow => Err(at(op.span(), ARITHMETIC)),
            },
            Expr::Compare(compare) => Err(at(compare.span(), "comparisons cannot be chained: use and")),
            Expr::IfExpr(cond) => {
                let Some(otherwise) = &cond.false_expr else {
                    return Err(at(cond.span(), "an if within a value needs an else"));
                };
                self.expr(&cond.test_expr)?;
                self.expr(&cond.true_expr)?;
                self.expr(otherwise)
            }
            Expr::Filter(filter) => {
                let Some((_, with)) = filters::ALL.iter().find(|(name, _)| *name == filter.name) else {
                    return Err(at(filter.span(), "this filter is not available"));
                };
                if *with == filter.args.is_empty() {
                    return Err(at(
                        filter.span(),
                        "append takes values to append, and no other filter takes any",
                    ));
                }
                filter.expr.iter().try_for_each(|value| self.expr(value))?;
                filter.args.iter().try_for_each(|arg| match arg {
                    CallArg::Pos(value) => self.expr(value),
                    _ => Err(at(filter.span(), "append takes values only")),
                })
            }
            Expr::GetAttr(attr) => match &attr.expr {
                Expr::Var(name) if name.id == KEYS => self.key(attr.name, attr.span()),
                Expr::Var(name) if name.id == "loop" && self.loops > 0 && LOOP.contains(&attr.name) => Ok(()),
                _ => Err(at(attr.span(), "only keys and loop have parts")),
            },
            Expr::GetItem(item) if is_keys(&item.expr) => match &item.subscript_expr {
                Expr::Const(constant) => match constant.value.as_str() {
                    Some(key) => self.key(key, item.span()),
                    None => Err(at(item.span(), "a key is named by a text")),
                },
                name => self.expr(name),
            },
            Expr::GetItem(item) => Err(at(item.span(), "only keys has parts")),
            Expr::Slice(slice) => Err(at(slice.span(), "parts of a text are not available")),
            Expr::Test(test) => Err(at(test.span(), "tests with is are not available")),
            Expr::Call(call) => Err(at(call.span(), "calls are not available")),
            Expr::List(list) => Err(at(list.span(), LIST)),
            Expr::Tuple(tuple) => Err(at(tuple.span(), LIST)),
            Expr::Map(map) => Err(at(map.span(), LIST)),
        }
    }

    /// A name by itself.
    fn known(&self, name: &str, span: Span) -> Result<(), Fault> {
        if self.assigned.contains(name) { Ok(()) } else { self.key(name, span) }
    }

    fn key(&self, key: &str, span: Span) -> Result<(), Fault> {
        if (self.is_key)(key) { Ok(()) } else { Err(Fault::UnknownName(line(span))) }
    }
}

const ARITHMETIC: &str = "arithmetic is not available; ~ joins texts";
const LIST: &str = "a list stands only in a loop";

fn is_const(expr: &Expr<'_>) -> bool {
    matches!(expr, Expr::Const(_))
}

fn is_keys(expr: &Expr<'_>) -> bool {
    matches!(expr, Expr::Var(name) if name.id == KEYS)
}

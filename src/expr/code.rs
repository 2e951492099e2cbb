//! One expression: read into a tree, judged and taken over node by node, and made into instructions for the engine.
//!
//! Nothing gets through that is not named here: names that the place does not offer, unknown filters, wrong arguments,
//! methods, bytes that would print. Operators get their operands in the engine's own numbers, and `~` is ours.

use minijinja::Value as Engine;
use minijinja::machinery::ast::{self, Expr};
use minijinja::machinery::{CodeGenerator, Instructions, Span, Token, parse_expr, tokenize};
use self_cell::self_cell;

use super::filters::{self, JOINED, NUMERIC, OR_NULL, Signature};
use super::kind::Kind;
use super::names::{Name, Names};
use super::{Mistake, Scope};
use crate::tree::closest;

/// Longest expression, in bytes.
pub const EXPRESSION_MAX: usize = 8 << 10;
/// Most tokens of an expression. The tree that is made of them is at most as deep, and so is the stack that walks it.
const TOKENS_MAX: usize = 400;
/// Deepest nesting of brackets.
const BRACKETS_MAX: usize = 24;

/// Tests (`is …`) of the engine that are part of the language.
pub(super) const TESTS: [&str; 27] = [
    "defined",
    "undefined",
    "none",
    "boolean",
    "true",
    "false",
    "number",
    "integer",
    "float",
    "odd",
    "even",
    "divisibleby",
    "string",
    "lower",
    "upper",
    "startingwith",
    "endingwith",
    "sequence",
    "iterable",
    "mapping",
    "in",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
];
/// Functions of the engine that are part of the language.
const FUNCTIONS: [&str; 2] = ["range", "dict"];

self_cell! {
    struct Compiled {
        owner: Box<str>,
        #[covariant]
        dependent: Instructions,
    }
}

/// A compiled expression.
pub struct Code {
    compiled: Compiled,
    /// Where it stands in the whole text.
    pub at: usize,
    /// What it uses.
    pub names: Names,
    /// Its type, as far as it can be seen.
    pub kind: Kind,
    /// The paths that it looks up, to say which one was undefined.
    pub lookups: Box<[Box<str>]>,
}

impl Code {
    /// Compiles `source`; `offset` is where it stands in the whole text.
    pub fn compile(source: &str, offset: usize, scope: &Scope<'_>) -> Result<Self, Vec<Mistake>> {
        let padded = source.len() - source.trim_start().len();
        let (source, offset) = (source.trim(), offset + padded);
        bounded(source).map_err(|m| vec![moved(m, offset)])?;
        let mut walk = Walk { scope, offset, names: Names::NONE, lookups: Vec::new(), mistakes: Vec::new() };
        let mut kind = Kind::Any;
        let compiled = Compiled::try_new(source.into(), |source| {
            let tree = parse_expr(source).map_err(|error| {
                let at = error.range().map_or(0, |range| range.start);
                let detail = error.detail().unwrap_or("it cannot be read").to_owned();
                vec![Mistake::new(offset + at, format!("the expression has a mistake: {detail}"), "")]
            })?;
            let (tree, seen) = walk.expr(&tree);
            kind = seen;
            if !walk.mistakes.is_empty() {
                return Err(std::mem::take(&mut walk.mistakes));
            }
            let mut generator = CodeGenerator::new("<expression>", source);
            generator.compile_expr(&tree);
            Ok(generator.finish().0)
        })?;
        walk.lookups.sort_unstable();
        walk.lookups.dedup();
        Ok(Self { compiled, at: offset, names: walk.names, kind, lookups: walk.lookups.into() })
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        self.compiled.borrow_owner()
    }

    /// For the engine.
    pub fn instructions(&self) -> &Instructions<'_> {
        self.compiled.borrow_dependent()
    }
}

fn moved(mut mistake: Mistake, offset: usize) -> Mistake {
    mistake.at += offset;
    mistake
}

/// Refuses what is too long or too deep before anything recursive looks at it.
fn bounded(source: &str) -> Result<(), Mistake> {
    if source.is_empty() {
        return Err(Mistake::new(0, "the expression is empty", ""));
    }
    if source.len() > EXPRESSION_MAX {
        return Err(Mistake::new(0, format!("the expression is longer than {EXPRESSION_MAX} bytes"), "split it, or put parts into `vars`"));
    }
    if let Some(at) = source.find("${") {
        let hint = "references are put in after expressions are compiled: name the secret under `secrets`, or the value under `vars`";
        return Err(Mistake::new(at, "`${…}` cannot stand inside `{{ … }}`", hint));
    }
    let mut depth = 0_usize;
    for (count, token) in tokenize(source, true, Default::default()).enumerate() {
        let Ok((token, span)) = token else { return Ok(()) };
        match token {
            Token::BracketOpen | Token::ParenOpen | Token::BraceOpen => depth += 1,
            Token::BracketClose | Token::ParenClose | Token::BraceClose => depth = depth.saturating_sub(1),
            _ => {}
        }
        let at = span.start_offset as usize;
        if depth > BRACKETS_MAX {
            return Err(Mistake::new(at, format!("the expression is nested more than {BRACKETS_MAX} deep"), ""));
        }
        if count >= TOKENS_MAX {
            return Err(Mistake::new(at, format!("the expression has more than {TOKENS_MAX} words and signs"), "split it"));
        }
    }
    Ok(())
}

/// Takes a tree over, node by node.
struct Walk<'w> {
    scope: &'w Scope<'w>,
    offset: usize,
    names: Names,
    lookups: Vec<Box<str>>,
    mistakes: Vec<Mistake>,
}

/// A node taken over, and its type.
type Taken<'a> = (Expr<'a>, Kind);

impl Walk<'_> {
    fn mistake(&mut self, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.mistakes.push(Mistake::new(self.offset + span.start_offset as usize, message, hint));
    }

    fn expr<'a>(&mut self, expr: &Expr<'a>) -> Taken<'a> {
        match expr {
            Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_) => self.lookup(expr),
            Expr::Const(c) => (spanned(Expr::Const, ast::Const { value: c.value.clone() }, c.span()), kind_of(&c.value)),
            Expr::Slice(s) => {
                let (expr, kind) = self.expr(&s.expr);
                if matches!(kind, Kind::Bytes | Kind::Moment) {
                    self.mistake(s.span(), format!("{kind} cannot be sliced"), "write bytes with `hex` or `b64encode` first");
                }
                let mut bound = |bound: &Option<Expr<'a>>| bound.as_ref().map(|b| self.expr(b).0);
                let (start, stop, step) = (bound(&s.start), bound(&s.stop), bound(&s.step));
                (spanned(Expr::Slice, ast::Slice { expr, start, stop, step }, s.span()), kind)
            }
            Expr::UnaryOp(u) => self.unary(u),
            Expr::BinOp(b) => self.binary(b),
            Expr::Compare(c) => {
                let expr = self.operand(&c.expr);
                let ops = c.ops.iter().map(|op| ast::CompareOp { op: op.op, expr: self.operand(&op.expr) }).collect();
                (spanned(Expr::Compare, ast::Compare { expr, ops }, c.span()), Kind::Bool)
            }
            Expr::IfExpr(i) => {
                let test_expr = self.expr(&i.test_expr).0;
                let (true_expr, yes) = self.expr(&i.true_expr);
                let (false_expr, no) = match &i.false_expr {
                    Some(expr) => Some(self.expr(expr)).map_or((None, Kind::Any), |(e, k)| (Some(e), k)),
                    None => (None, yes),
                };
                (spanned(Expr::IfExpr, ast::IfExpr { test_expr, true_expr, false_expr }, i.span()), yes.or(no))
            }
            Expr::Filter(f) => self.filter(f),
            Expr::Test(t) => self.test(t),
            Expr::Call(c) => self.call(c),
            Expr::List(l) => {
                let items = l.items.iter().map(|item| self.expr(item).0).collect();
                (spanned(Expr::List, ast::List { items }, l.span()), Kind::List)
            }
            Expr::Tuple(t) => {
                let items = t.items.iter().map(|item| self.expr(item).0).collect();
                (spanned(Expr::List, ast::List { items }, t.span()), Kind::List)
            }
            Expr::Map(m) => {
                let keys = m.keys.iter().map(|key| self.expr(key).0).collect();
                let values = m.values.iter().map(|value| self.expr(value).0).collect();
                (spanned(Expr::Map, ast::Map { keys, values }, m.span()), Kind::Map)
            }
        }
    }

    fn unary<'a>(&mut self, u: &ast::Spanned<ast::UnaryOp<'a>>) -> Taken<'a> {
        let (expr, op, kind) = match u.op {
            ast::UnaryOpKind::Not => (self.expr(&u.expr).0, ast::UnaryOpKind::Not, Kind::Bool),
            ast::UnaryOpKind::Neg => (self.operand(&u.expr), ast::UnaryOpKind::Neg, Kind::Number),
        };
        (spanned(Expr::UnaryOp, ast::UnaryOp { op, expr }, u.span()), kind)
    }

    fn binary<'a>(&mut self, b: &ast::Spanned<ast::BinOp<'a>>) -> Taken<'a> {
        use ast::BinOpKind as Op;
        match b.op {
            Op::Concat => {
                let (left, l) = self.expr(&b.left);
                let (right, r) = self.expr(&b.right);
                for (kind, side) in [(l, &b.left), (r, &b.right)] {
                    self.printable(kind, side.span());
                }
                let call = ast::Filter { name: JOINED, expr: Some(left), args: vec![ast::CallArg::Pos(right)] };
                (spanned(Expr::Filter, call, b.span()), Kind::Text)
            }
            Op::ScAnd | Op::ScOr => {
                let (left, l) = self.expr(&b.left);
                let (right, r) = self.expr(&b.right);
                (spanned(Expr::BinOp, ast::BinOp { op: b.op, left, right }, b.span()), l.or(r))
            }
            Op::Eq | Op::Ne => {
                let left = self.compared(&b.left);
                let right = self.compared(&b.right);
                (spanned(Expr::BinOp, ast::BinOp { op: b.op, left, right }, b.span()), Kind::Bool)
            }
            op => {
                let arithmetic = !matches!(op, Op::Lt | Op::Lte | Op::Gt | Op::Gte | Op::In);
                let left = self.operand_of(&b.left, arithmetic);
                let right = self.operand_of(&b.right, arithmetic);
                let kind = if arithmetic { Kind::Any } else { Kind::Bool };
                (spanned(Expr::BinOp, ast::BinOp { op, left, right }, b.span()), kind)
            }
        }
    }

    /// An operand of `==` or `!=`. What an answer's body lacks compares as null: `body.ok != false` holds without an `ok`.
    fn compared<'a>(&mut self, expr: &Expr<'a>) -> Expr<'a> {
        let span = expr.span();
        let answered = path(expr).is_some_and(|path| path[0] == "body" && self.scope.names.has(Name::Body));
        let operand = self.operand(expr);
        if !answered {
            return operand;
        }
        spanned(Expr::Filter, ast::Filter { name: OR_NULL, expr: Some(operand), args: Vec::new() }, span)
    }

    fn operand<'a>(&mut self, expr: &Expr<'a>) -> Expr<'a> {
        self.operand_of(expr, false)
    }

    /// An operand, as the engine's own number where it is one. Being a call, it also keeps the engine from folding
    /// constants, which costs no fuel.
    fn operand_of<'a>(&mut self, expr: &Expr<'a>, arithmetic: bool) -> Expr<'a> {
        let span = expr.span();
        let (expr, kind) = self.expr(expr);
        if arithmetic && matches!(kind, Kind::Bytes | Kind::Moment) {
            let hint = if kind == Kind::Moment { "use `plus` and `minus`" } else { "write bytes with `hex` or `b64encode` first" };
            self.mistake(span, format!("nothing can be computed with {kind}"), hint);
        }
        spanned(Expr::Filter, ast::Filter { name: NUMERIC, expr: Some(expr), args: Vec::new() }, span)
    }

    /// Reports what would print although it has no text.
    fn printable(&mut self, kind: Kind, span: Span) {
        use super::value::Unprintable as U;
        let why = match kind {
            Kind::Bytes => U::Bytes,
            Kind::Moment => U::Moment,
            Kind::List => U::List,
            Kind::Map => U::Map,
            Kind::Null => U::Null,
            _ => return,
        };
        self.mistake(span, why.to_string(), "");
    }

    fn filter<'a>(&mut self, f: &ast::Spanned<ast::Filter<'a>>) -> Taken<'a> {
        let Some(input) = &f.expr else {
            self.mistake(f.span(), "a filter without an input", "");
            return (spanned(Expr::Const, ast::Const { value: Engine::UNDEFINED }, f.span()), Kind::Any);
        };
        let at = input.span();
        let (mut input, kind) = self.expr(input);
        let constants: Vec<(Option<&str>, Option<String>)> = f.args.iter().map(constant).collect();
        let args = self.args(&f.args, f.span());
        let mut output = Kind::Any;
        match filters::find(f.name) {
            None => {
                let known: Vec<&str> = filters::names().collect();
                self.mistake(f.span(), format!("there is no filter `{}`", f.name), closest(f.name, &known));
            }
            Some(signature) => {
                self.judge(signature, kind, &args, &constants, (at, f.span()));
                if signature.counts {
                    input = spanned(Expr::Filter, ast::Filter { name: NUMERIC, expr: Some(input), args: Vec::new() }, at);
                }
                output = signature.output.unwrap_or(kind);
            }
        }
        let args = args.into_iter().map(|(arg, _)| arg).collect();
        (spanned(Expr::Filter, ast::Filter { name: f.name, expr: Some(input), args }, f.span()), output)
    }

    fn judge(
        &mut self,
        signature: &Signature,
        input: Kind,
        args: &[(ast::CallArg<'_>, Kind)],
        constants: &[(Option<&str>, Option<String>)],
        (at, span): (Span, Span),
    ) {
        let name = signature.name;
        if !signature.takes(input) {
            self.mistake(at, format!("`{name}` takes {}, and this is {input}", signature.wants()), "");
        }
        if !signature.bytes {
            for (_, kind) in args {
                if matches!(kind, Kind::Bytes | Kind::Moment) {
                    self.mistake(span, format!("`{name}` cannot use {kind} as an argument"), "");
                }
            }
        }
        let mut given: Vec<Option<&str>> = vec![None; signature.params.len()];
        let mut bound = vec![false; signature.params.len()];
        for (index, (keyword, value)) in constants.iter().enumerate() {
            let slot = match keyword {
                None => Some(index).filter(|i| *i < signature.params.len()),
                Some(word) => signature.params.iter().position(|p| p == word && signature.named),
            };
            match slot {
                Some(slot) if !bound[slot] => {
                    bound[slot] = true;
                    given[slot] = value.as_deref();
                }
                _ if signature.open => {}
                _ => {
                    self.mistake(span, format!("`{name}` is called with an argument that it does not take"), signature.usage());
                    return;
                }
            }
        }
        if bound.iter().take(signature.required).any(|b| !b) {
            self.mistake(span, format!("`{name}` lacks an argument"), signature.usage());
            return;
        }
        if let Some(check) = signature.check
            && let Err(why) = check(&given)
        {
            self.mistake(span, format!("`{name}`: {why}"), "");
        }
    }

    fn args<'a>(&mut self, args: &[ast::CallArg<'a>], span: Span) -> Vec<(ast::CallArg<'a>, Kind)> {
        let mut taken = Vec::new();
        for arg in args {
            match arg {
                ast::CallArg::Pos(expr) => {
                    let (expr, kind) = self.expr(expr);
                    taken.push((ast::CallArg::Pos(expr), kind));
                }
                ast::CallArg::Kwarg(name, expr) => {
                    let (expr, kind) = self.expr(expr);
                    taken.push((ast::CallArg::Kwarg(name, expr), kind));
                }
                ast::CallArg::PosSplat(_) | ast::CallArg::KwargSplat(_) => {
                    self.mistake(span, "`*` and `**` in front of an argument are not part of the language", "write the arguments out");
                }
            }
        }
        taken
    }

    fn test<'a>(&mut self, t: &ast::Spanned<ast::Test<'a>>) -> Taken<'a> {
        let expr = self.operand(&t.expr);
        let args = self.args(&t.args, t.span()).into_iter().map(|(arg, _)| arg).collect();
        if !TESTS.contains(&t.name) {
            self.mistake(t.span(), format!("there is no test `is {}`", t.name), closest(t.name, &TESTS));
        }
        (spanned(Expr::Test, ast::Test { name: t.name, expr, args }, t.span()), Kind::Bool)
    }

    fn call<'a>(&mut self, c: &ast::Spanned<ast::Call<'a>>) -> Taken<'a> {
        let args: Vec<_> = self.args(&c.args, c.span()).into_iter().map(|(arg, _)| arg).collect();
        let id = match c.identify_call() {
            ast::CallType::Function(name) if FUNCTIONS.contains(&name) => name,
            ast::CallType::Function(name) => {
                let hint = if filters::find(name).is_some() {
                    format!("`{name}` is a filter: write VALUE | {name}")
                } else {
                    closest(name, &FUNCTIONS)
                };
                self.mistake(c.span(), format!("there is no function `{name}`"), hint);
                ""
            }
            ast::CallType::Method(_, name) => {
                self.mistake(c.span(), format!("there are no methods, and so no `.{name}(…)`"), "use a filter: VALUE | upper");
                ""
            }
            ast::CallType::Object(_) => {
                self.mistake(c.span(), "this cannot be called", "");
                ""
            }
        };
        let kind = if id == "dict" { Kind::Map } else { Kind::List };
        let expr = spanned(Expr::Var, ast::Var { id }, c.span());
        (spanned(Expr::Call, ast::Call { expr, args }, c.span()), kind)
    }

    /// A name, and what is looked up in it.
    fn lookup<'a>(&mut self, expr: &Expr<'a>) -> Taken<'a> {
        if let Expr::Var(var) = expr
            && var.id == "null"
        {
            return (spanned(Expr::Const, ast::Const { value: Engine::from(()) }, var.span()), Kind::Null);
        }
        if let Some(path) = path(expr) {
            self.name(&path, expr.span());
            self.lookups.push(path.join(".").into());
            let kind = self.kind_of_path(&path);
            return (copied(expr), kind);
        }
        match expr {
            Expr::GetAttr(g) => {
                let (expr, _) = self.expr(&g.expr);
                (spanned(Expr::GetAttr, ast::GetAttr { expr, name: g.name }, g.span()), Kind::Any)
            }
            Expr::GetItem(g) => {
                // What is picked by a computed key: which part of a fixed set it is cannot be seen.
                if let Expr::Var(var) = &g.expr
                    && !self.scope.names.parts(var.id).is_empty()
                {
                    let hint = format!("write it out, as {}.{}", var.id, self.scope.names.parts(var.id)[0]);
                    self.mistake(g.span(), format!("which part of `{}` this reads cannot be seen", var.id), hint);
                    return (copied_undefined(g.span()), Kind::Any);
                }
                let (expr, _) = self.expr(&g.expr);
                let (subscript_expr, _) = self.expr(&g.subscript_expr);
                (spanned(Expr::GetItem, ast::GetItem { expr, subscript_expr }, g.span()), Kind::Any)
            }
            other => (copied(other), Kind::Any),
        }
    }

    fn kind_of_path(&self, path: &[&str]) -> Kind {
        match path {
            ["now"] => Kind::Moment,
            ["uuid" | "uuid7" | "base"] => Kind::Text,
            ["request", "method" | "host" | "path" | "raw_path" | "target" | "raw_query"] => Kind::Text,
            ["request", "query" | "headers"] | ["client" | "token", "claims"] | ["vars" | "secrets" | "captured"] => Kind::Map,
            ["request", "body_sha256"] => Kind::Bytes,
            ["client", "groups"] => Kind::List,
            ["client", "name" | "kind"] => Kind::Text,
            _ => Kind::Any,
        }
    }

    /// Judges a name by what the place offers, and notes that it is used.
    fn name(&mut self, path: &[&str], span: Span) {
        let root = path[0];
        if let Some(name) = self.scope.names.find(root, "") {
            self.names = self.names.with(Names::of(&[name]));
            if root == "secrets" {
                self.secret(path.get(1).copied(), span);
            }
            return;
        }
        let parts = self.scope.names.parts(root);
        if parts.is_empty() {
            return self.unknown(root, span);
        }
        match path.get(1) {
            None => {
                let hint = format!("name a part of it: {}", listed(root, &parts));
                self.mistake(span, format!("`{root}` is not a value by itself"), hint);
            }
            Some(part) => match self.scope.names.find(root, part) {
                Some(name) => self.names = self.names.with(Names::of(&[name])),
                None => {
                    let hint = format!("there is {}", listed(root, &parts));
                    self.mistake(span, format!("there is no `{root}.{part}` here"), hint);
                }
            },
        }
    }

    fn secret(&mut self, name: Option<&str>, span: Span) {
        let (Some(name), Some(known)) = (name, self.scope.secrets) else { return };
        if !known.iter().any(|k| &**k == name) {
            let names: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
            let hint = match closest(name, &names) {
                near if near.starts_with("did") => near,
                _ => format!("add it to the resource: secrets: {{ {name}: \"${{env:NAME}}\" }}"),
            };
            self.mistake(span, format!("there is no secret `{name}` under `secrets`"), hint);
        }
    }

    fn unknown(&mut self, root: &str, span: Span) {
        let everywhere = Names::ALL;
        let roots = self.scope.names.roots();
        if everywhere.roots().contains(&root) {
            self.mistake(span, format!("`{root}` does not exist at this place"), format!("here there is {}", roots.join(", ")));
        } else if filters::find(root).is_some() {
            self.mistake(span, format!("there is no input `{root}`"), format!("`{root}` is a filter: write VALUE | {root}"));
        } else {
            let near = closest(root, &roots);
            let hint = if near.starts_with("did") { near } else { format!("here there is {}; text needs quotes", roots.join(", ")) };
            self.mistake(span, format!("there is no input `{root}`"), hint);
        }
    }
}

fn listed(root: &str, parts: &[&str]) -> String {
    parts.iter().map(|part| format!("{root}.{part}")).collect::<Vec<_>>().join(", ")
}

fn spanned<'a, T>(node: impl FnOnce(ast::Spanned<T>) -> Expr<'a>, inner: T, span: Span) -> Expr<'a> {
    node(ast::Spanned::new(inner, span))
}

fn copied_undefined<'a>(span: Span) -> Expr<'a> {
    spanned(Expr::Const, ast::Const { value: Engine::UNDEFINED }, span)
}

/// The names of a look-up all of whose steps are written out.
fn path<'a>(expr: &'a Expr<'_>) -> Option<Vec<&'a str>> {
    match expr {
        Expr::Var(var) => Some(vec![var.id]),
        Expr::GetAttr(g) => {
            let mut path = path(&g.expr)?;
            path.push(g.name);
            Some(path)
        }
        Expr::GetItem(g) => {
            let Expr::Const(key) = &g.subscript_expr else { return None };
            let mut path = path(&g.expr)?;
            path.push(key.value.as_str()?);
            Some(path)
        }
        _ => None,
    }
}

/// A look-up with its steps written out, as it is.
fn copied<'a>(expr: &Expr<'a>) -> Expr<'a> {
    match expr {
        Expr::Var(var) => spanned(Expr::Var, ast::Var { id: var.id }, var.span()),
        Expr::GetAttr(g) => spanned(Expr::GetAttr, ast::GetAttr { expr: copied(&g.expr), name: g.name }, g.span()),
        Expr::GetItem(g) => {
            let inner = ast::GetItem { expr: copied(&g.expr), subscript_expr: copied(&g.subscript_expr) };
            spanned(Expr::GetItem, inner, g.span())
        }
        Expr::Const(c) => spanned(Expr::Const, ast::Const { value: c.value.clone() }, c.span()),
        other => copied_undefined(other.span()),
    }
}

/// The keyword of an argument, and its text where it is a constant one.
fn constant<'a>(arg: &ast::CallArg<'a>) -> (Option<&'a str>, Option<String>) {
    let text = |expr: &Expr<'_>| match expr {
        Expr::Const(c) => c.value.as_str().map(str::to_owned),
        _ => None,
    };
    match arg {
        ast::CallArg::Pos(expr) => (None, text(expr)),
        ast::CallArg::Kwarg(name, expr) => (Some(name), text(expr)),
        ast::CallArg::PosSplat(_) | ast::CallArg::KwargSplat(_) => (None, None),
    }
}

fn kind_of(value: &Engine) -> Kind {
    use minijinja::value::ValueKind as V;
    match value.kind() {
        V::None => Kind::Null,
        V::Bool => Kind::Bool,
        V::Number => Kind::Number,
        V::String => Kind::Text,
        V::Seq => Kind::List,
        V::Map => Kind::Map,
        _ => Kind::Any,
    }
}

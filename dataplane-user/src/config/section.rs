//! Reads the keys of a section, and says what is wrong with those that cannot be read.

use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::report::{Fault, Placed, Report, quoted};
use super::schema::{Form, Schema, unknown_key};

/// A section of the file, or where it is not there, the absence of it: then no key has a value.
pub(super) struct Section<'a, 'r> {
    schema: &'static Schema,
    at: usize,
    table: Option<&'a DeTable<'a>>,
    report: &'r mut Report<'a>,
}

impl<'a, 'r> Section<'a, 'r> {
    /// The section of which there may be one.
    pub(super) fn single(
        parent: &'a DeTable<'a>,
        schema: &'static Schema,
        report: &'r mut Report<'a>,
    ) -> Self {
        debug_assert_eq!(schema.form, Form::Single);
        let absent = |report| Self { schema, at: 0, table: None, report };
        let Some(found) = parent.get(schema.name) else { return absent(report) };
        match found.get_ref() {
            DeValue::Table(table) => Self::open(schema, found.span().start, table, report),
            other => {
                report.error(found.span().start, wrong_form(schema, other));
                absent(report)
            }
        }
    }

    /// Reads each of the sections of which there may be many, in the order of the file; `None` for one that
    /// is written as something else, which has been reported.
    pub(super) fn each<T>(
        parent: &'a DeTable<'a>,
        schema: &'static Schema,
        report: &mut Report<'a>,
        mut read: impl FnMut(&mut Section<'a, '_>) -> T,
    ) -> Vec<Option<T>> {
        debug_assert_eq!(schema.form, Form::Many);
        let Some(found) = parent.get(schema.name) else { return Vec::new() };
        let DeValue::Array(items) = found.get_ref() else {
            report.error(found.span().start, wrong_form(schema, found.get_ref()));
            return vec![None];
        };
        let mut sections = Vec::with_capacity(items.len());
        for item in items {
            let at = item.span().start;
            sections.push(match item.get_ref() {
                DeValue::Table(table) => Some(read(&mut Section::open(schema, at, table, report))),
                other => {
                    report.error(at, wrong_form(schema, other));
                    None
                }
            });
        }
        sections
    }

    fn open(schema: &'static Schema, at: usize, table: &'a DeTable<'a>, report: &'r mut Report<'a>) -> Self {
        for key in table.keys().filter(|key| !schema.has(key.get_ref())) {
            report.error(key.span().start, unknown_key(schema, key.get_ref()));
        }
        Self { schema, at, table: Some(table), report }
    }

    /// Where the section begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The keys, for the sections within this one; none where the section is not there.
    pub(super) fn table(&self) -> Option<&'a DeTable<'a>> {
        self.table
    }

    /// Where the value of a key stands, if it is there.
    pub(super) fn place(&self, key: &str) -> Option<usize> {
        self.value(key).map(|value| value.span().start)
    }

    /// Where the section's findings go.
    pub(super) fn report(&mut self) -> &mut Report<'a> {
        self.report
    }

    /// A string that `parse` takes.
    pub(super) fn text<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<Placed<T>> {
        let value = self.value(key)?;
        let parsed = match value.get_ref() {
            DeValue::String(text) => parse(text),
            other => Err(self.wrong_type(key, "a string", other)),
        };
        self.placed(value.span().start, parsed)
    }

    /// A string that `parse` takes, and that must be there.
    pub(super) fn required_text<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<Placed<T>> {
        self.require(key);
        self.text(key, parse)
    }

    /// A list of strings that `parse` takes, none twice. Those that it refuses are left out.
    pub(super) fn texts<T: PartialEq>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<Vec<Placed<T>>> {
        let list = self.value(key)?;
        let DeValue::Array(items) = list.get_ref() else {
            let fault = self.wrong_type(key, "a list of strings", list.get_ref());
            self.report.error(list.span().start, fault);
            return None;
        };
        let mut parsed: Vec<Placed<T>> = Vec::with_capacity(items.len());
        for item in items {
            let at = item.span().start;
            let result = match item.get_ref() {
                DeValue::String(text) => parse(text).and_then(|value| once(&parsed, value, text)),
                other => Err(self.wrong_type(key, "a list of strings", other)),
            };
            parsed.extend(self.placed(at, result));
        }
        Some(parsed)
    }

    /// Such a list, which must not be empty: left out, it stands for `default`.
    pub(super) fn some_texts<T: PartialEq>(
        &mut self,
        key: &str,
        default: &str,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<Vec<Placed<T>>> {
        if let Some(list) = self.value(key)
            && list.get_ref().as_array().is_some_and(|items| items.is_empty())
        {
            let mend = format!("name at least one, or remove the line: the default is {default}");
            self.report.error(list.span().start, Fault::new(format!("`{key}` is an empty list"), mend));
            return None;
        }
        self.texts(key, parse)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &str) -> Option<Placed<bool>> {
        let value = self.value(key)?;
        let parsed = match value.get_ref() {
            DeValue::Boolean(flag) => Ok(*flag),
            other => Err(self.wrong_type(key, "true or false", other)),
        };
        self.placed(value.span().start, parsed)
    }

    /// A whole number of that range.
    pub(super) fn number<T>(&mut self, key: &str, range: RangeInclusive<T>) -> Option<Placed<T>>
    where
        T: Copy + Into<i128> + TryFrom<i128>,
    {
        let value = self.value(key)?;
        let parsed = match value.get_ref() {
            DeValue::Integer(number) => self.within(key, number, range),
            other => Err(self.wrong_type(key, "a whole number", other)),
        };
        self.placed(value.span().start, parsed)
    }

    /// A whole number of that range, which must be there.
    pub(super) fn required_number<T>(&mut self, key: &str, range: RangeInclusive<T>) -> Option<Placed<T>>
    where
        T: Copy + Into<i128> + TryFrom<i128>,
    {
        self.require(key);
        self.number(key, range)
    }

    fn within<T>(&self, key: &str, number: &DeInteger<'_>, range: RangeInclusive<T>) -> Result<T, Fault>
    where
        T: Copy + Into<i128> + TryFrom<i128>,
    {
        let (lowest, highest): (i128, i128) = ((*range.start()).into(), (*range.end()).into());
        i128::from_str_radix(number.as_str(), number.radix())
            .ok()
            .filter(|value| (lowest..=highest).contains(value))
            .and_then(|value| T::try_from(value).ok())
            .ok_or_else(|| {
                let message = format!(
                    "`{key}` must be from {lowest} to {highest}, not {}",
                    quoted(&number.to_string())
                );
                Fault::new(message, format!("the default is {}", self.schema.example(key)))
            })
    }

    fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        debug_assert!(self.schema.has(key), "{key} is no key of {}", self.schema.header());
        // A value without extent is what the parser puts where it found none; it has said so.
        self.table?.get(key).filter(|value| !value.span().is_empty())
    }

    fn require(&mut self, key: &str) {
        // Without the section, who needs it says so; and a line that is no TOML may have held the key.
        let missing = self.table.is_some_and(|table| table.get(key).is_none());
        if missing && self.report.is_whole() {
            let fault = Fault::new(
                format!("{} has no `{key}`", self.schema.header()),
                format!("add a line such as `{key} = {}`", self.schema.example(key)),
            );
            self.report.error(self.at, fault);
        }
    }

    fn wrong_type(&self, key: &str, expected: &str, found: &DeValue<'_>) -> Fault {
        let found = match found.type_str() {
            "array" => "a list",
            "boolean" => "true or false",
            "datetime" => "a date",
            "float" => "a fraction",
            "integer" => "a number",
            "string" => "a string",
            _ => "a section",
        };
        let message = format!("`{key}` must be {expected}, not {found}");
        Fault::new(message, format!("write for example `{key} = {}`", self.schema.example(key)))
    }

    fn placed<T>(&mut self, at: usize, parsed: Result<T, Fault>) -> Option<Placed<T>> {
        match parsed {
            Ok(value) => Some(Placed { value, at }),
            Err(fault) => {
                self.report.error(at, fault);
                None
            }
        }
    }
}

/// The value, unless the list has it already.
fn once<T: PartialEq>(items: &[Placed<T>], value: T, text: &str) -> Result<T, Fault> {
    if items.iter().any(|item| item.value == value) {
        return Err(Fault::new(format!("{} is listed twice", quoted(text)), "remove one of the two"));
    }
    Ok(value)
}

fn wrong_form(schema: &Schema, found: &DeValue<'_>) -> Fault {
    let header = schema.header();
    let message = match (schema.form, found) {
        (Form::Single, DeValue::Array(_)) => format!("there can be one {header} only"),
        (Form::Many, DeValue::Table(_)) => {
            format!("there can be several {header}, each with a header of its own")
        }
        _ => format!("`{}` is a section, not a key", schema.name),
    };
    Fault::new(message, format!("write `{header}` on a line of its own, and the keys below it"))
}

//! Annotated CSV, as far as it is needed to read a value: tables with types and defaults, one after the other.

/// The text is not annotated CSV, or ends within a record.
#[derive(Debug, PartialEq, Eq)]
pub struct NotCsv;

/// Reads one record after the other.
pub struct Reader<'a> {
    rest: &'a str,
    /// The columns of the current table; each list has an empty cell or an annotation's name ahead of them.
    names: Vec<String>,
    kinds: Vec<String>,
    defaults: Vec<String>,
}

/// One value of a record.
#[derive(Debug, PartialEq, Eq)]
pub struct Cell<'a> {
    /// The type of its column: `double`, `long`, `string` …
    pub kind: &'a str,
    /// The value; empty if it is null.
    pub text: &'a str,
}

impl<'a> Reader<'a> {
    /// Reads a text from its beginning.
    pub const fn new(text: &'a str) -> Self {
        Self {
            rest: text,
            names: Vec::new(),
            kinds: Vec::new(),
            defaults: Vec::new(),
        }
    }

    /// Returns the cells of the next record; `None` at the end of the text.
    pub fn record(&mut self) -> Result<Option<Vec<String>>, NotCsv> {
        while !self.rest.is_empty() {
            let row = self.row()?;
            match row.first().map(String::as_str) {
                Some("") if row.len() == 1 => {}
                Some(annotation) if annotation.starts_with('#') => {
                    if !self.names.is_empty() {
                        *self = Self::new(self.rest);
                    }
                    match annotation {
                        "#datatype" => self.kinds = row,
                        "#default" => self.defaults = row,
                        _ => {}
                    }
                }
                Some("") if self.kinds.is_empty() => return Err(NotCsv),
                Some("") if self.names.is_empty() => self.names = row,
                Some("") if self.names.len() == row.len() => return Ok(Some(row)),
                Some(_) | None => return Err(NotCsv),
            }
        }
        Ok(None)
    }

    /// Returns the cell of a record in the column with this name. An empty cell has the default of its column.
    pub fn cell<'r>(&'r self, record: &'r [String], name: &str) -> Option<Cell<'r>> {
        let place = self.names.iter().position(|known| known == name)?;
        let text = record.get(place).filter(|text| !text.is_empty());
        let text = text.or_else(|| self.defaults.get(place));
        Some(Cell {
            kind: self.kinds.get(place)?,
            text: text.map_or("", String::as_str),
        })
    }

    /// Returns the message of a record in a table that reports an error.
    pub fn error<'r>(&self, record: &'r [String]) -> Option<&'r str> {
        let is_error = matches!(self.names.as_slice(), [_, error, reference] if error == "error" && reference == "reference");
        record.get(1).filter(|_| is_error).map(String::as_str)
    }

    /// Returns the cells of the next line. A quoted cell may contain commas, line ends and, doubled, quotes.
    fn row(&mut self) -> Result<Vec<String>, NotCsv> {
        let mut cells = Vec::new();
        loop {
            let (cell, after) = match self.rest.strip_prefix('"') {
                Some(quoted) => unquoted(quoted)?,
                None => {
                    let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
                    let (cell, after) = self.rest.split_at(end);
                    (cell.trim_end_matches('\r').to_owned(), after)
                }
            };
            cells.push(cell);
            if let Some(more) = after.strip_prefix(',') {
                self.rest = more;
                continue;
            }
            let after = after.strip_prefix('\r').unwrap_or(after);
            self.rest = match after.strip_prefix('\n') {
                Some(next) => next,
                None if after.is_empty() => after,
                None => return Err(NotCsv),
            };
            return Ok(cells);
        }
    }
}

/// Returns the text of a quoted cell, and the rest behind its last quote.
fn unquoted(mut rest: &str) -> Result<(String, &str), NotCsv> {
    let mut cell = String::new();
    loop {
        let (text, after) = rest.split_once('"').ok_or(NotCsv)?;
        cell.push_str(text);
        match after.strip_prefix('"') {
            Some(after) => {
                cell.push('"');
                rest = after;
            }
            None => return Ok((cell, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text and type of the column `v` in each record.
    fn values(text: &str) -> Result<Vec<String>, NotCsv> {
        let mut reader = Reader::new(text);
        let mut values = Vec::new();
        while let Some(record) = reader.record()? {
            let cell = reader.cell(&record, "v");
            values.push(cell.map_or("-".to_owned(), |cell| {
                format!("{} {}", cell.kind, cell.text)
            }));
        }
        Ok(values)
    }

    #[test]
    fn each_table_has_types_and_defaults_of_its_own() {
        let text = "#group,false,true\r\n#datatype,string,double\r\n#default,_result,7\r\n,result,v\r\n,,1.5\r\n,,\r\n\r\n\
            #datatype,string\r\n#default,\r\n,v\r\n,a\r\n\r\n#datatype,long\n,other\n,1";
        assert_eq!(
            values(text),
            Ok(["double 1.5", "double 7", "string a", "-"]
                .map(str::to_owned)
                .to_vec())
        );
    }

    #[test]
    fn a_quoted_cell_may_contain_all_characters() {
        let text = "#datatype,string,string\n,v,w\n,\"a,\"\"b\"\"\nc\",d\n";
        assert_eq!(values(text), Ok(vec!["string a,\"b\"\nc".to_owned()]));
    }

    #[test]
    fn other_texts_and_halves_of_records_are_no_csv() {
        for text in [
            "<html>",
            "{}",
            ",v\n,1\n",
            "#datatype,double\n,v\n,1,2\n",
            "#datatype,string,double\n,w,v\n,a\n",
            "#datatype,string\n,v\n,\"a",
            "#datatype,string\n,v\n,\"a\"b\n",
        ] {
            assert_eq!(values(text), Err(NotCsv), "{text}");
        }
        for text in ["", "\r\n", "\r\n\r\n", "#datatype,double\n,v\n"] {
            assert_eq!(values(text), Ok(Vec::new()), "{text:?}");
        }
    }
}

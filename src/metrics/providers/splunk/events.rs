//! Server-sent events, as the HTML standard defines their stream.

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its lines of data.
    pub data: String,
}

impl<'a> Event<'a> {
    /// All events of a stream. The last one may lack its end.
    pub fn all(stream: &'a str) -> impl Iterator<Item = Self> {
        let mut lines = stream.lines();
        std::iter::from_fn(move || {
            let (mut name, mut data) = ("message", Vec::new());
            loop {
                let line = lines.next();
                let Some(line) = line.filter(|line| !line.is_empty()) else {
                    if !data.is_empty() {
                        let data = data.join("\n");
                        return Some(Self { name, data });
                    }
                    line?;
                    name = "message";
                    continue;
                };
                let (field, value) = line.split_once(':').unwrap_or((line, ""));
                let value = value.strip_prefix(' ').unwrap_or(value);
                match field {
                    "event" => name = value,
                    "data" => data.push(value),
                    _ => {}
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(stream: &str) -> Vec<String> {
        let events = Event::all(stream);
        events
            .map(|Event { name, data }| format!("{name}: {data}"))
            .collect()
    }

    #[test]
    fn an_event_ends_with_an_empty_line() {
        let stream = "\n: a comment\nevent: data\nid: 7\ndata: {\ndata:  \"a\" : 1\ndata: }\n\n\
            data:x\r\n\r\nevent: empty\n\ndata: z\n\nevent: half\ndata: y";
        assert_eq!(
            events(stream),
            [
                "data: {\n \"a\" : 1\n}",
                "message: x",
                "message: z",
                "half: y"
            ]
        );
        assert_eq!(events(""), [""; 0]);
        assert_eq!(events("<html>"), [""; 0]);
    }
}

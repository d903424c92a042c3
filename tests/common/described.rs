//! What /openapi.json says of answers, held against real ones.

use serde_json::Value;

use super::{Raw, get_json};

/// The document of a node.
pub(crate) struct Described(Value);

impl Described {
    /// That of the node at this address.
    pub(crate) fn by(addr: &str) -> Described {
        Described(get_json(addr, "/openapi.json"))
    }

    /// The answer must be one that the document knows for this method and this path (without the first slash). What it does
    /// not serve at all is no concern of it.
    #[track_caller]
    pub(crate) fn check(&self, method: &str, path: &str, answer: &Raw) {
        let Some(operation) = self.operation(method, path) else {
            assert!(matches!(answer.status, 404 | 405), "{method} /{path} is answered and not described: {answer:?}");
            return;
        };
        let responses = &operation["responses"];
        let response = &responses[answer.status.to_string()];
        assert!(response.is_object(), "{method} /{path}: {} is not described: {answer:?}", answer.status);
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            let value = answer.header(name);
            assert!(!value.is_empty(), "{method} /{path}: no {name}: {answer:?}");
            self.conforms(&header["schema"], &Value::from(value), &format!("{method} /{path}: {name}"));
        }
        let content_type = answer.header("content-type").split(';').next().unwrap_or_default().trim();
        match response["content"].as_object() {
            None => assert!(answer.body.is_empty(), "{method} /{path}: {answer:?}"),
            Some(content) if content.contains_key("*/*") => {}
            Some(content) => {
                let content =
                    content.get(content_type).unwrap_or_else(|| panic!("{method} /{path}: type of {answer:?}"));
                if content_type.ends_with("json") && !content_type.ends_with("ndjson") {
                    self.conforms(&content["schema"], &answer.json(), &format!("{method} /{path}"));
                }
            }
        }
    }

    /// The operation of a path: of those that fit, the one with the fewest parameters.
    fn operation(&self, method: &str, path: &str) -> Option<&Value> {
        let path = path.split('?').next().unwrap_or_default();
        let asked: Vec<&str> = path.split('/').collect();
        let paths = self.0["paths"].as_object().expect("paths").iter();
        let fitting = paths.filter(|(template, methods)| {
            let parts: Vec<&str> = template[1..].split('/').collect();
            // The last parameter of these may have slashes.
            let is_rest = ["{key}", "{value}"].contains(parts.last().expect("a part"));
            let has_length = asked.len() == parts.len() || is_rest && asked.len() > parts.len();
            let fits = parts.iter().zip(&asked).all(|(part, asked)| part.starts_with('{') || part == asked);
            has_length && fits && methods.get(method.to_lowercase()).is_some()
        });
        fitting
            .min_by_key(|(template, _)| template.matches('{').count())
            .map(|(_, methods)| &methods[method.to_lowercase()])
    }

    /// Holds a value against a schema. Patterns are not looked at.
    #[track_caller]
    fn conforms(&self, schema: &Value, value: &Value, at: &str) {
        if let Err(why) = self.flaw(schema, value, at) {
            panic!("{why}");
        }
    }

    fn flaw(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.strip_prefix("#/components/schemas/").expect("a shape of this document");
            return self.flaw(&self.0["components"]["schemas"][name], value, at);
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            let fits = choices.iter().any(|choice| self.flaw(choice, value, at).is_ok());
            return if fits { Ok(()) } else { Err(format!("{at}: {value} is none of {choices:?}")) };
        }
        if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
            return Err(format!("{at}: {value} is not one of {}", schema["enum"]));
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
            one => one.as_str().into_iter().collect(),
        };
        let is = |named: &&str| match *named {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_u64() || value.is_i64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            other => panic!("{at}: the type {other} is unknown"),
        };
        if !types.is_empty() && !types.iter().any(is) {
            return Err(format!("{at}: {value} is not {types:?}"));
        }
        for (place, item) in value.as_array().into_iter().flatten().enumerate() {
            self.flaw(&schema["items"], item, &format!("{at}[{place}]"))?;
        }
        self.flaw_of_fields(schema, value, at)
    }

    fn flaw_of_fields(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let Some(fields) = value.as_object() else { return Ok(()) };
        for name in schema["required"].as_array().into_iter().flatten() {
            if !fields.contains_key(name.as_str().expect("a name")) {
                return Err(format!("{at}: {name} is missing in {value}"));
            }
        }
        for (name, field) in fields {
            match schema["properties"].get(name) {
                Some(known) => self.flaw(known, field, &format!("{at}.{name}"))?,
                None if schema["additionalProperties"] == false => {
                    return Err(format!("{at}: {name} is not described"));
                }
                None => {}
            }
        }
        Ok(())
    }
}

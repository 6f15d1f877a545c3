//! Taking secrets out of any text. Pure.
//!
//! Nothing secret is collected on purpose; this is for what programs write into their logs and
//! people into their settings. It knows no formats: it looks for what secrets look like, and
//! rather takes too much than too little.

const MARK: &str = "[redacted]";

/// Ends of names whose values are secret, without separators and in lower case. `token-file` is
/// none of them: paths may stay.
const SECRET_NAMES: [&str; 16] = [
    "token",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "secretkey",
    "apikey",
    "accesskey",
    "privatekey",
    "keydata",
    "certificatedata",
    "authoritydata",
    "credential",
    "credentials",
    "authorization",
    "cookie",
];
/// A run of base64 this long, with letters of both cases, may be a key.
const BASE64_LENGTH_MIN: usize = 80;
const BASE64_CAPITALS_MIN: usize = 8;

/// The text without private keys, tokens, passwords, credentials of kubeconfigs and whatever
/// looks like one of them.
pub fn redact(text: &str) -> String {
    let text = private_keys(text);
    let text = fields(&text);
    let text = schemes(&text);
    let text = urls(&text);
    words(&text)
}

/// PEM blocks, also with escaped line breaks, and also when only a half of one is there.
fn private_keys(text: &str) -> String {
    const LABEL: &str = "PRIVATE KEY-----";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(LABEL) {
        let (head, tail) = (&rest[..at], &rest[at + LABEL.len()..]);
        let (begin, end) = (head.rfind("-----BEGIN "), head.rfind("-----END "));
        match begin {
            Some(begin) => out.push_str(&head[..begin]),
            // The beginning of the block is cut off: all before may belong to it.
            None => out.clear(),
        }
        out.push_str(MARK);
        let opens = end.is_none_or(|end| begin.is_some_and(|begin| begin > end));
        rest = match (opens, tail.find(LABEL)) {
            (true, Some(end)) => &tail[end + LABEL.len()..],
            (true, None) => "",
            (false, _) => tail,
        };
    }
    out.push_str(rest);
    out
}

/// `name: value`, `name=value`, `"name": "value"` and the like.
fn fields(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        fields_of_line(line, &mut out);
    }
    out
}

fn fields_of_line(line: &str, out: &mut String) {
    let mut rest = line;
    loop {
        let Some((end_of_name, value_at)) = next_secret_field(rest) else {
            out.push_str(rest);
            return;
        };
        let value = &rest[value_at..];
        let yaml = rest[end_of_name..value_at].contains(':') && is_alone(rest, end_of_name);
        let length = value_length(value, yaml);
        out.push_str(&rest[..value_at]);
        if length > 0 {
            out.push_str(MARK);
        }
        rest = &value[length..];
    }
}

/// Finds the next secret name with a value: where the name ends and where its value begins.
fn next_secret_field(text: &str) -> Option<(usize, usize)> {
    for (at, separator) in text.char_indices().filter(|(_, c)| matches!(c, ':' | '=')) {
        let head = text[..at].trim_end_matches([' ', '\t', '"', '\'', '\\']);
        let name_at = head
            .rfind(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
            .map_or(0, |i| i + head[i..].chars().next().map_or(1, char::len_utf8));
        if !is_secret_name(&head[name_at..]) {
            continue;
        }
        let after = at + separator.len_utf8();
        let value = text[after..].trim_start_matches([' ', '\t', '"', '\'', '\\']);
        let value_at = text.len() - value.len();
        if !value.trim().is_empty() && !value.starts_with(MARK) && !value.starts_with(['{', '[']) {
            return Some((head.len(), value_at));
        }
    }
    None
}

fn is_secret_name(name: &str) -> bool {
    let plain: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .map(|c| c.to_ascii_lowercase())
        .collect();
    SECRET_NAMES.iter().any(|secret| plain.ends_with(secret))
}

/// Whether the name is the first word of its line, as in YAML: its value is the whole rest.
fn is_alone(line: &str, end_of_name: usize) -> bool {
    let head = line[..end_of_name].trim_start_matches([' ', '\t', '-', '"', '\'']);
    !head.contains(char::is_whitespace)
}

fn value_length(value: &str, whole_line: bool) -> usize {
    let stops: &[char] = if whole_line {
        &['\n', '\r', '"', '\'', '\\']
    } else {
        &['\n', '\r', '"', '\'', '\\', ' ', '\t', ',', ';', '&', ')', ']', '}']
    };
    // `Authorization: Bearer x` has its secret in the second word.
    let skipped = ["bearer ", "basic "]
        .iter()
        .find(|scheme| value.get(..scheme.len()).is_some_and(|h| h.eq_ignore_ascii_case(scheme)))
        .map_or(0, |scheme| scheme.len());
    skipped + value[skipped..].find(stops).unwrap_or(value.len() - skipped)
}

/// What follows `Bearer` or `Basic`, wherever it stands.
fn schemes(text: &str) -> String {
    ["bearer ", "basic "].iter().fold(text.to_owned(), |text, scheme| after(&text, scheme))
}

fn after(text: &str, scheme: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    while let Some(found) = lower[from..].find(scheme) {
        let at = from + found + scheme.len();
        out.push_str(&text[from..at]);
        let rest = &text[at..];
        let inner = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
        let length = rest.find(|c| !inner(c)).unwrap_or(rest.len());
        let word = &rest[..length];
        out.push_str(if looks_random(word) { MARK } else { word });
        from = at + length;
    }
    out.push_str(&text[from..]);
    out
}

/// A word of prose is not a token.
fn looks_random(word: &str) -> bool {
    let mixed = word.bytes().any(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
    (word.len() >= 8 && mixed) || word.len() >= 20
}

/// The password in `scheme://user:password@host`.
fn urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        let authority_end = tail
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '?' | '#'))
            .unwrap_or(tail.len());
        // A password may hold slashes where a program did not encode it.
        let at_sign = tail[..authority_end].rfind('@').or_else(|| {
            let line = tail.find(char::is_whitespace).unwrap_or(tail.len());
            tail[..line].rfind('@').filter(|at| tail[..*at].contains(':'))
        });
        rest = tail;
        if let Some(at_sign) = at_sign
            && let Some(colon) = tail[..at_sign].find(':')
        {
            out.push_str(&tail[..=colon]);
            out.push_str(MARK);
            rest = &tail[at_sign..];
        }
    }
    out.push_str(rest);
    out
}

/// JSON web tokens and long runs of base64.
fn words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '_' | '-' | '.') {
            word.push(c);
            continue;
        }
        flush(&mut word, &mut out);
        out.push(c);
    }
    flush(&mut word, &mut out);
    out
}

fn flush(word: &mut String, out: &mut String) {
    let is_web_token = word.find("eyJ").is_some_and(|at| word[at..].matches('.').count() >= 2);
    let capitals = word.bytes().filter(u8::is_ascii_uppercase).count();
    let lower = word.bytes().filter(u8::is_ascii_lowercase).count();
    let is_key = word.len() >= BASE64_LENGTH_MIN
        && capitals >= BASE64_CAPITALS_MIN
        && lower >= BASE64_CAPITALS_MIN;
    out.push_str(if is_web_token || is_key { MARK } else { word });
    word.clear();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_kind_of_secret_is_taken_out_and_the_rest_stays() {
        let cases = [
            ("level=info token=abc123 next=1", "level=info token=[redacted] next=1"),
            ("    token: abc 123", "    token: [redacted]"),
            ("client-key-data: LS0tLS1C", "client-key-data: [redacted]"),
            ("{\"password\": \"a b\", \"x\": 1}", "{\"password\": \"[redacted]\", \"x\": 1}"),
            ("Authorization: Bearer abcdefgh", "Authorization: [redacted]"),
            ("sent bearer abc12345 to x", "sent bearer [redacted] to x"),
            ("mysql://root:p4ss@db:3306/k8s", "mysql://root:[redacted]@db:3306/k8s"),
            // A password may hold a slash: rather once too often.
            ("https://db:3306/a@b", "https://db:[redacted]@b"),
            ("--token-file=/etc/token --x=1", "--token-file=/etc/token --x=1"),
            ("token=abc123 next=1", "token=[redacted] next=1"),
            ("basic configuration", "basic configuration"),
            ("the bearer of news", "the bearer of news"),
            ("token expired", "token expired"),
            ("password:", "password:"),
        ];
        for (text, expected) in cases {
            assert_eq!(redact(text), expected);
        }
    }

    #[test]
    fn private_keys_go_whole_certificates_stay() {
        let key = "a\n-----BEGIN EC PRIVATE KEY-----\nMHcC\nAQEE\n-----END EC PRIVATE KEY-----\nb";
        assert_eq!(redact(key), "a\n[redacted]\nb");
        let escaped = r#"{"k":"-----BEGIN PRIVATE KEY-----\nMHcC\n-----END PRIVATE KEY-----\n"}"#;
        assert!(!redact(escaped).contains("MHcC"));
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        assert_eq!(redact(certificate), certificate);
    }

    #[test]
    fn half_a_private_key_goes_too() {
        assert_eq!(redact("x\n-----BEGIN PRIVATE KEY-----\nMHcC\nAQ"), "x\n[redacted]");
        assert!(!redact("MHcC\nAQEE\n-----END PRIVATE KEY-----\nafter").contains("MHcC"));
    }

    #[test]
    fn web_tokens_and_long_base64_go_paths_stay() {
        let token = "eyJhbGciOi.eyJpc3Mi.c2lnbmF0dXJl";
        assert_eq!(redact(&format!("got {token}, ok")), "got [redacted], ok");
        let path = "/kubepods/burstable/pod0f9d8a7b-0123-4567-89ab-0123456789ab/\
                    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        assert_eq!(redact(path), path);
    }

    fn secret() -> impl Strategy<Value = String> {
        "[A-Za-z0-9]{24,40}"
    }

    proptest! {
        #[test]
        fn no_secret_survives_in_any_surroundings(
            secret in secret(), before in "[a-z ,.:{}\"]{0,30}", after in "[a-z ,.{}\"\n]{0,30}",
            shape in 0usize..8,
        ) {
            let text = match shape {
                0 => format!("{before} token={secret} {after}"),
                1 => format!("{before}\ntoken: {secret}\n{after}"),
                2 => format!("{before} \"client-key-data\": \"{secret}\"{after}"),
                3 => format!("{before} Authorization: Bearer {secret} {after}"),
                4 => format!("{before} https://me:{secret}@host/x {after}"),
                5 => format!("{before}-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----{after}"),
                6 => format!("{before} ey{secret}.{secret}.{secret} {after}").replacen("ey", "eyJ", 1),
                _ => format!("{before} password='{secret}' {after}"),
            };
            // The surroundings may begin something of their own in shape 6.
            prop_assume!(shape != 6 || !before.contains("ey"));
            let redacted = redact(&text);
            prop_assert!(!redacted.contains(&secret), "{redacted}");
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = redact(&redact(&text));
        }
    }
}

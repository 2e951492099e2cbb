//! The pages that a person sees on the way. They hold no script, load nothing, cannot be framed or kept, and everything on
//! them that came from elsewhere is escaped.

use std::fmt::Write as _;
use std::sync::LazyLock;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, SET_COOKIE, X_FRAME_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

use crate::secret::Secret;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:12vh auto;padding:0 1rem;color:#1b1b1f;background:#fff}\
h1{font-size:1.4rem}dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1rem}dt{color:#5c5c66}dd{margin:0;overflow-wrap:anywhere}\
button{font:inherit;padding:.5rem 1.2rem;margin-right:.6rem}code{font-size:1.15rem;overflow-wrap:anywhere}\
@media(prefers-color-scheme:dark){body{color:#e8e8ee;background:#17171b}dt{color:#a5a5b0}}";

/// The style is allowed by its hash, and nothing else is.
static STYLE_HASH: LazyLock<String> = LazyLock::new(|| STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes())));

/// A page or a redirect.
pub type Page = Response<Full<Bytes>>;

/// What a person is asked.
#[derive(Debug)]
pub struct Question<'a> {
    /// Whose connection it will be.
    pub client: Option<&'a str>,
    /// The resource.
    pub resource: &'a str,
    /// The connection.
    pub connection: &'a str,
    /// Whether there is one of that name.
    pub replaces: bool,
    /// Who will ask for consent.
    pub provider: &'a str,
    /// What will be asked for.
    pub scopes: &'a [String],
    /// Where the answer goes.
    pub action: &'a str,
    /// Proves that the answer comes from this page.
    pub proof: &'a Secret,
}

/// Asks whether to connect.
pub fn question(question: &Question<'_>) -> Page {
    let mut rows = String::new();
    let mut row = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = write!(rows, "<dt>{name}</dt><dd>{}</dd>", escaped(value));
    };
    row("Resource", question.resource);
    row("Connection", question.connection);
    row("For the client", question.client.unwrap_or("every client that may use this resource"));
    row("Consent is asked by", question.provider);
    if !question.scopes.is_empty() {
        row("For", &question.scopes.join(", "));
    }
    let replaces = if question.replaces { "<p>There is a connection of this name already: it will be replaced.</p>" } else { "" };
    let body = format!(
        "<dl>{rows}</dl>{replaces}<p>Go on only if you have asked for this yourself just now. Whoever has sent you this page would use \
         the account that you choose next.</p><form method=\"post\" action=\"{}\"><input type=\"hidden\" name=\"proof\" value=\"{}\">\
         <button name=\"answer\" value=\"connect\">Connect an account</button><button name=\"answer\" value=\"cancel\">Cancel</button></form>",
        escaped(question.action),
        escaped(question.proof.expose())
    );
    // A form that is redirected is judged by this list at each hop in some browsers, so providers must be on it.
    page(StatusCode::OK, "Connect an account", &body, "'self' https: http://127.0.0.1:* http://localhost:*")
}

/// Shows the code that finishes a connection where there is no place to land.
pub fn code(code: &Secret, resource: &str) -> Page {
    let body = format!(
        "<p>The account of {} is not connected yet. Where you have asked for this, give this code:</p><p><code>{}</code></p>\
         <p>On the gateway's machine: <code>postern connect --code {}</code></p><p>Give it to nobody else: it connects your account. \
         It is good once, for a few minutes.</p>",
        escaped(resource),
        escaped(code.expose()),
        escaped(code.expose())
    );
    page(StatusCode::OK, "One step is left", &body, "'none'")
}

/// Says that the provider has delivered, and leads the browser on.
pub fn delivered(way: &str) -> Page {
    let body = format!("<p>The answer has arrived.</p><p><a href=\"{}\">Go on in the browser in which you began</a></p>", escaped(way));
    page(StatusCode::OK, "Almost done", &body, "'none'")
}

/// Says something.
pub fn message(status: StatusCode, title: &str, text: &str) -> Page {
    page(status, title, &format!("<p>{}</p>", escaped(text)), "'none'")
}

/// Says which methods there are.
pub fn not_allowed(methods: &'static str) -> Page {
    let mut page = message(StatusCode::METHOD_NOT_ALLOWED, "Not like this", "This address is called in another way.");
    page.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    page
}

/// Sends the browser on.
pub fn redirect(to: &Secret) -> Page {
    let mut page = message(StatusCode::SEE_OTHER, "Going on", "You are being sent on.");
    match HeaderValue::from_str(to.expose()) {
        Ok(mut to) => {
            to.set_sensitive(true);
            page.headers_mut().insert(LOCATION, to);
            page
        }
        Err(_) => message(StatusCode::INTERNAL_SERVER_ERROR, "Not connected", "The address to go to cannot be written."),
    }
}

/// The same page with a cookie.
pub fn with_cookie(mut page: Page, cookie: &str) -> Page {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        page.headers_mut().append(SET_COOKIE, cookie);
    }
    page
}

fn page(status: StatusCode, title: &str, body: &str, forms: &str) -> Page {
    let title = escaped(title);
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>{body}</body></html>\n"
    );
    let mut response = Response::new(Full::new(html.into()));
    *response.status_mut() = status;
    let policy =
        format!("default-src 'none'; style-src 'sha256-{}'; form-action {forms}; frame-ancestors 'none'; base-uri 'none'", *STYLE_HASH);
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (X_FRAME_OPTIONS, "DENY"),
        (http::header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for name in ["cross-origin-opener-policy", "cross-origin-resource-policy"] {
        headers.insert(name, HeaderValue::from_static("same-origin"));
    }
    response
}

/// Text that is nothing but text, in content and in quoted attributes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // What turns the direction of writing could make a name look like another.
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn text(page: Page) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        String::from_utf8(runtime.block_on(page.into_body().collect()).unwrap().to_bytes().to_vec()).unwrap()
    }

    #[test]
    fn nothing_that_came_from_elsewhere_becomes_part_of_the_page() {
        let evil = "\"><script>alert(1)</script>'&\u{202e}\n";
        let proof = Secret::new(evil.into());
        let scopes = [evil.to_owned()];
        let asked = Question {
            client: Some(evil),
            resource: evil,
            connection: evil,
            replaces: true,
            provider: evil,
            scopes: &scopes,
            action: evil,
            proof: &proof,
        };
        for page in [question(&asked), code(&proof, evil), delivered(evil), message(StatusCode::OK, evil, evil)] {
            let text = text(page);
            assert!(!text.contains("<script") && !text.contains("\">&lt;\"") && !text.contains('\u{202e}'), "{text}");
            assert!(text.contains("&lt;script&gt;"), "{text}");
        }
    }

    #[test]
    fn no_page_can_be_framed_kept_or_scripted() {
        let page = message(StatusCode::OK, "a", "b");
        let policy = page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"));
        assert_eq!(page.headers()[CACHE_CONTROL], "no-store");
        assert_eq!(page.headers()[REFERRER_POLICY], "no-referrer");
    }
}

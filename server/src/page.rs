//! `/`: a page for people who open the server's address in a browser; `/health`: the same in one word for machines.
//!
//! The server is well unless its store refuses writes, as on a full disk: then all that can be done is to read.

use std::net::IpAddr;
use std::time::Duration;

use http::header::{CONTENT_SECURITY_POLICY, FORWARDED, HOST, ORIGIN, VIA};
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Version};
use serde_json::json;

use crate::config::Registration;
use crate::http::{Answer, Call, Outcome, endpoints};

endpoints! {
    GET "/"       [] None None Nothing get_page;
    GET "/health" [] None None Nothing get_health;
}

const PAGE: &str = include_str!("page.html");

/// The page loads nothing and runs nothing.
const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");

async fn get_page(call: Call) -> Outcome {
    let config = &call.ctx.config;
    let (registration, how_to_join) = match config.registration {
        Registration::Closed => {
            ("Closed", "Log in with the account that the administrator has made for you.")
        }
        Registration::Token => ("With a token", "Register with a token from the administrator, or log in."),
        Registration::Open => ("Open", "Register, or log in."),
    };
    let token = call.ctx.first_token().filter(|_| is_from_here(&call));
    let token = token.map_or_else(String::new, |token| {
        format!(
            "<section class=\"token\">\n<h2>The first account</h2>\n<p>Nobody has an account yet. Register with this \
             token; it works once, and the account becomes the administrator's.</p>\n<code>{}</code>\n\
             <p>Only visitors from this machine see it.</p>\n</section>\n",
            escape(&token)
        )
    });
    let (mark, health) = match call.ctx.engine.takes_writes() {
        true => ("good", "Up"),
        false => ("bad", "The disk is full or failing and nothing can be written; up"),
    };
    let values: [(&str, &str); 9] = [
        ("{mark}", mark),
        ("{health}", health),
        ("{server_name}", &escape(config.server_name.as_str())),
        ("{uptime}", &duration(call.ctx.started.elapsed())),
        ("{version}", env!("CARGO_PKG_VERSION")),
        ("{registration}", registration),
        ("{how_to_join}", how_to_join),
        ("{base_url}", &escape(&config.public_base_url)),
        ("{token}", &token),
    ];
    let page = values.iter().fold(PAGE.to_owned(), |page, (name, value)| page.replace(name, value));
    Ok(Answer::html(page).with_header(CONTENT_SECURITY_POLICY, POLICY).with_cache_control("no-store"))
}

async fn get_health(call: Call) -> Outcome {
    let (status, code) = match call.ctx.engine.takes_writes() {
        true => ("ok", http::StatusCode::OK),
        false => ("refusing_writes", http::StatusCode::SERVICE_UNAVAILABLE),
    };
    let body = json!({
        "status": status,
        "server_name": call.ctx.config.server_name,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": call.ctx.started.elapsed().as_secs(),
    });
    Ok(Answer::json(&body)?.with_status(code).with_cache_control("no-store"))
}

/// What tells that a request has come by way of a proxy, which may be on this machine itself.
const SIGNS_OF_PROXIES: [HeaderName; 4] =
    [FORWARDED, VIA, HeaderName::from_static("x-forwarded-for"), HeaderName::from_static("x-real-ip")];

/// Whether it is a person on this machine who asks: by no proxy, of which some tell nothing but speak HTTP/1.0, as no browser
/// does, and not by the script of some other page, to which a browser would show the answer. A name that leads here can be
/// anybody's, so the address must be one that only leads here.
fn is_from_here(call: &Call) -> bool {
    let is_near = call.client.is_none_or(|address| address.is_loopback());
    let is_direct = !SIGNS_OF_PROXIES.iter().any(|name| call.headers().contains_key(name))
        && call.version() > Version::HTTP_10;
    let is_opened = !call.headers().contains_key(ORIGIN);
    let is_here = match call.headers().get(HOST).map(HeaderValue::to_str) {
        Some(host) => host.is_ok_and(is_own_address),
        None => call.authority().is_none_or(is_own_address),
    };
    is_near && is_direct && is_opened && is_here
}

/// Whether a `Host` only leads here. What is none might be a name all the same to whoever sent it.
fn is_own_address(host: &str) -> bool {
    let Ok(host) = host.parse::<Authority>() else { return false };
    let host = host.host();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Text as HTML shows it.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A duration in its one or two largest units.
fn duration(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let shown = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!(shown(59), "59 s");
        assert_eq!(shown(61), "1 min");
        assert_eq!(shown(7_260), "2 h 1 min");
        assert_eq!(shown(180_000), "2 d 2 h");
    }
}

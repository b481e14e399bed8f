//! What the answers of Secret Manager mean.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use sealedenv_seal::Plain;
use serde::Deserialize;

use crate::transport::Reply;
use crate::{Outcome, Read};

#[derive(Deserialize)]
struct Version<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    payload: Payload<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    #[serde(borrow)]
    data: Cow<'a, str>,
    /// A number of 64 bits, which is a text in this API.
    #[serde(borrow)]
    data_crc32c: Option<Cow<'a, str>>,
}

/// What Google says where it says no.
#[derive(Deserialize)]
struct No {
    error: Error,
}

#[derive(Deserialize)]
struct Error {
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: String,
}

/// The version that was asked for by that name.
pub(super) fn read(reply: &Reply, name: &str) -> Outcome {
    if reply.status != StatusCode::OK {
        return refused(reply);
    }
    let Ok(answer) = serde_json::from_slice::<Version<'_>>(reply.body.expose()) else {
        return Outcome::Malformed;
    };
    let Ok(content) = STANDARD.decode(answer.payload.data.as_ref()).map(Plain::from) else {
        return Outcome::Malformed;
    };
    let is_whole = answer.payload.data_crc32c.is_none_or(|sum| sum.parse() == Ok(crc32c(content.expose())));
    match version(&answer.name, name) {
        Some(version) if is_whole && !content.is_empty() => {
            Outcome::Found(Read { content, version: Some(version.to_owned()), lease: None })
        }
        _ => Outcome::Malformed,
    }
}

/// The version that an answer is of, if that is the one that was asked for. Google writes a project's number where its id
/// was asked for, and the number of a version where an alias was.
fn version<'a>(answered: &'a str, asked: &str) -> Option<&'a str> {
    let (secret, version) = answered.rsplit_once("/versions/")?;
    let (wanted, alias) = asked.rsplit_once("/versions/")?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let behind_project = |name: &str| Some(name.strip_prefix("projects/")?.split_once('/')?.1.to_owned());
    let is_secret = behind_project(secret)? == behind_project(wanted)?;
    (is_secret && is_number(version) && (!is_number(alias) || version == alias)).then_some(version)
}

/// A status that is none of success.
fn refused(reply: &Reply) -> Outcome {
    let away = Outcome::Unavailable { retry_after: reply.retry_after };
    let error = serde_json::from_slice::<No>(reply.body.expose()).ok().map(|no| no.error);
    let (status, message) =
        error.as_ref().map_or(("", ""), |error| (error.status.as_str(), error.message.as_str()));
    match (reply.status.as_u16(), status) {
        (404, "NOT_FOUND") => Outcome::NotFound,
        // A version that is destroyed is gone. One that is disabled is there, and nobody may have it.
        (400, "FAILED_PRECONDITION") if message.contains("DESTROYED") => Outcome::NotFound,
        (400, "FAILED_PRECONDITION") if message.contains("DISABLED") => Outcome::Denied,
        (401 | 403, _) => Outcome::Denied,
        // A 404 without that word is of something that stands before Google. 409 and 499: it was aborted, or cancelled.
        (404 | 409 | 429 | 499 | 500..=599, _) => away,
        _ => Outcome::Malformed,
    }
}

/// The checksum of RFC 3720 (CRC-32C, Castagnoli), which Secret Manager keeps with each version.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let step = |sum: u32, _| if sum & 1 == 1 { (sum >> 1) ^ POLYNOMIAL } else { sum >> 1 };
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        // RFC 3720, B.4, and the check value of the catalogue of CRCs.
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        for (bytes, sum) in [
            (b"123456789".to_vec(), 0xe306_9283),
            (vec![0; 32], 0x8a91_36aa),
            (vec![0xff; 32], 0x62a8_ab43),
            (ascending, 0x46dd_794e),
            (descending, 0x113f_db5c),
            (Vec::new(), 0),
        ] {
            assert_eq!(crc32c(&bytes), sum, "{bytes:?}");
        }
    }
}

//! When a certificate is valid, and what a clock says to that.

use rustls_pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

/// From when to when a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before_s: u64,
    pub not_after_s: u64,
}

/// A certificate that is not valid by our clock: the certificate is old, or the clock is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "its certificate is valid from {} to {}, and the clock of this machine says {}",
    moment(validity.not_before_s), moment(validity.not_after_s), moment(*now_s)
)]
pub struct ValidityError {
    pub validity: Validity,
    pub now_s: u64,
}

impl Validity {
    /// What a certificate says; nothing when it can't be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Validity> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let seconds = |time: x509_parser::time::ASN1Time| time.timestamp().try_into().unwrap_or(0);
        let validity = parsed.validity();
        Some(Validity {
            not_before_s: seconds(validity.not_before),
            not_after_s: seconds(validity.not_after),
        })
    }

    /// Whether it is valid then.
    pub fn check(self, now: UnixTime) -> Result<(), ValidityError> {
        let now_s = now.as_secs();
        if (self.not_before_s..=self.not_after_s).contains(&now_s) {
            return Ok(());
        }
        Err(ValidityError { validity: self, now_s })
    }
}

fn moment(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().map(OffsetDateTime::from_unix_timestamp);
    match time {
        Some(Ok(time)) => {
            let (date, hour, minute) = (time.date(), time.hour(), time.minute());
            format!("{date} {hour:02}:{minute:02} UTC")
        }
        _ => format!("{seconds} s after 1970"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_is_years_off_is_told_with_both_sides() {
        let validity = Validity { not_before_s: 1_796_000_000, not_after_s: 1_796_086_400 };
        let at = |s| validity.check(UnixTime::since_unix_epoch(Duration::from_secs(s)));
        assert_eq!(at(1_796_000_000), Ok(()));
        assert_eq!(at(1_796_086_400), Ok(()));
        assert_eq!(
            at(60).unwrap_err().to_string(),
            "its certificate is valid from 2026-11-30 00:53 UTC to 2026-12-01 00:53 UTC, and the \
             clock of this machine says 1970-01-01 00:01 UTC"
        );
        assert!(at(1_796_086_401).is_err());
    }
}

//! One-time codes of an authenticator (RFC 6238: SHA-1, six digits, half minutes). Only the code of the present half
//! minute counts; whether it has counted already is for the caller to remember, by the step that is returned.

use anyhow::{Context as _, anyhow};
use chrono::{DateTime, Utc};
use qrcode::{EcLevel, QrCode, render::svg};
use totp_rs::{Algorithm, Builder, Secret, Totp};

const STEP_SECONDS: u64 = 30;
const DIGITS: u8 = 6;
/// 160 bits, as RFC 4226 recommends.
pub const SECRET_BYTES: usize = 20;
const ISSUER: &str = "Vorca POS";
const QR_PIXELS_MIN: u32 = 240;

/// The shared secret of one user and one authenticator.
pub struct Authenticator {
    totp: Totp,
}

impl Authenticator {
    /// Of this secret, labelled with the log-in.
    pub fn new(secret: &[u8], login: &str) -> anyhow::Result<Self> {
        // A colon would end the label.
        let account = login.replace(':', "_");
        let totp = Builder::new()
            .with_algorithm(Algorithm::SHA1)
            .with_digits(DIGITS)
            .with_skew(0)
            .with_step_duration(STEP_SECONDS)
            .with_secret(secret.to_vec())
            .with_account_name(account)
            .with_issuer(Some(ISSUER))
            .build()
            .map_err(|error| anyhow!("{error}"))?;
        Ok(Authenticator { totp })
    }

    /// The step of which `code` is the code at this instant; none for any other code.
    pub fn step_of(&self, code: &str, at: DateTime<Utc>) -> Option<i64> {
        let is_plain = code.len() == usize::from(DIGITS) && code.bytes().all(|byte| byte.is_ascii_digit());
        let seconds = u64::try_from(at.timestamp()).ok()?;
        if !is_plain {
            return None;
        }
        i64::try_from(self.totp.check(code, seconds)?).ok()
    }

    /// The code at this instant.
    pub fn code(&self, at: DateTime<Utc>) -> String {
        self.totp.generate(u64::try_from(at.timestamp()).unwrap_or_default()).to_string()
    }

    /// For an authenticator that is typed into.
    pub fn secret_base32(&self) -> String {
        Secret::to_base32(self.totp.secret())
    }

    /// `otpauth://totp/...`
    pub fn uri(&self) -> anyhow::Result<String> {
        self.totp.to_url().map_err(|error| anyhow!("{error}"))
    }

    /// The same as a QR code.
    pub fn qr_svg(&self) -> anyhow::Result<String> {
        let code = QrCode::with_error_correction_level(self.uri()?, EcLevel::M).context("QR code")?;
        Ok(code.render::<svg::Color<'_>>().min_dimensions(QR_PIXELS_MIN, QR_PIXELS_MIN).build())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn codes_are_those_of_the_rfc() {
        // Appendix B of RFC 6238, the last six of its eight digits.
        let authenticator = Authenticator::new(b"12345678901234567890", "anna").unwrap();
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
        ] {
            assert_eq!(authenticator.code(at(seconds)), code);
            assert_eq!(authenticator.step_of(code, at(seconds)), Some(seconds / 30));
        }
    }

    #[test]
    fn only_the_code_of_this_half_minute_counts() {
        let authenticator = Authenticator::new(b"12345678901234567890", "anna").unwrap();
        let code = authenticator.code(at(3_000));
        assert_eq!(authenticator.step_of(&code, at(3_029)), Some(100));
        for other in [2_999, 3_030, 3_060, 0] {
            assert_eq!(authenticator.step_of(&code, at(other)), None, "{other}");
        }
        for bad in ["", "12345", "1234567", " 28708", "28708２", "287 082"] {
            assert_eq!(authenticator.step_of(bad, at(59)), None, "{bad}");
        }
    }

    #[test]
    fn it_is_handed_over_as_uri_and_qr_code() {
        let authenticator = Authenticator::new(b"12345678901234567890", "anna:b").unwrap();
        let uri = authenticator.uri().unwrap();
        assert!(uri.starts_with("otpauth://totp/Vorca%20POS:anna_b?"), "{uri}");
        assert!(uri.contains("secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"), "{uri}");
        assert_eq!(authenticator.secret_base32(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        assert!(authenticator.qr_svg().unwrap().contains("<svg"));
    }
}

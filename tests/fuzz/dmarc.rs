//! DMARC records: the version stands first, and what is not asked for is not read into one.

use super::*;
use crate::fuzz::run;

#[test]
fn a_record_asks_for_no_more_than_it_says() {
    run("dmarc", |input| {
        let record = Record::parse(input)?;
        let text = String::from_utf8_lossy(input).to_ascii_lowercase();
        assert!(text.trim_start().starts_with('v') && text.contains("dmarc1"));
        if let Policies::Apply {
            domain,
            subdomains,
            nonexistent,
        } = record.policies
        {
            for policy in [domain, subdomains, nonexistent] {
                assert!(policy != DmarcPolicy::Reject || text.contains("reject"));
            }
        }
        assert!(record.dkim == Alignment::Relaxed || text.contains("adkim"));
        assert!(record.spf == Alignment::Relaxed || text.contains("aspf"));
        assert!(record.suffix == Suffix::Unknown || text.contains("psd"));
        Some(format!("{record:?}"))
    });
}

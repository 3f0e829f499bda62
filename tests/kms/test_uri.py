"""``awskms:`` URIs: what is one, and what it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_keys.errors import UsageError
from hsm_keys.stores.awskms.uri import AwsKmsUri, in_region, is_key_reference, region_of

UUID = "1234abcd-12ab-34cd-56ef-1234567890ab"
MRK = "mrk-1234abcd12ab34cd56ef1234567890ab"

REGIONS = st.lists(st.sampled_from(["us-east-1", "us-west-2", "eu-central-1", "us-gov-west-1"]), unique=True)
ALIASES = st.from_regex(r"alias/[A-Za-z0-9/_-]{1,40}", fullmatch=True).filter(lambda a: not a.startswith("alias/aws/"))


@given(
    key=st.one_of(st.just(""), ALIASES, st.just(UUID), st.just(MRK)),
    regions=REGIONS,
    profile=st.one_of(st.none(), st.text(min_size=1, max_size=30).filter(str.isprintable)),
    attempts=st.integers(1, 10),
    budget_ms=st.integers(100, 60_000),
    accept_imported=st.booleans(),
)
def test_a_uri_that_is_written_reads_back_the_same(
    *, key: str, regions: list[str], profile: str | None, attempts: int, budget_ms: int, accept_imported: bool
) -> None:
    uri = AwsKmsUri(key, tuple(regions), profile, attempts, budget_ms, accept_imported)
    assert AwsKmsUri.parse(str(uri)) == uri


@given(st.one_of(st.text(), st.text().map("awskms:///".__add__), st.text().map("awskms:///?region=".__add__)))
def test_any_text_is_a_uri_or_a_usage_error(text: str) -> None:
    try:
        uri = AwsKmsUri.parse(text)
    except UsageError:
        return
    assert AwsKmsUri.parse(str(uri)) == uri


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("awskms:///", AwsKmsUri()),
        (
            f"awskms:///alias/hsm-keys/prod?api-key-id={UUID}&public-key-sha256={'AB' * 32}",
            AwsKmsUri("alias/hsm-keys/prod", api_key_id=UUID, public_key_sha256="ab" * 32),
        ),
        ("AWSKMS:///?region=us-east-1", AwsKmsUri(regions=("us-east-1",))),
        (
            "awskms:///alias/hsm-keys/prod?region=us-east-1,us-west-2",
            AwsKmsUri("alias/hsm-keys/prod", ("us-east-1", "us-west-2")),
        ),
        (f"awskms:///{UUID}?region=eu-west-1&profile=ops%20team", AwsKmsUri(UUID, ("eu-west-1",), "ops team")),
        (f"awskms:///arn:aws:kms:us-east-1:111122223333:key/{UUID}", "us-east-1"),
        ("awskms:///arn:aws-cn:kms:cn-north-1:111122223333:alias/hsm-keys/prod", "cn-north-1"),
        (f"awskms:///arn:aws:kms:us-east-1:111122223333:key/{MRK}?region=us-west-2,us-east-1", "us-west-2,us-east-1"),
        ("awskms:///?attempts=3&budget-ms=500&imported=accept", AwsKmsUri("", (), None, 3, 500, True)),
    ],
)
def test_what_a_uri_says(text: str, expected: AwsKmsUri | str) -> None:
    parsed = AwsKmsUri.parse(text)
    assert (",".join(parsed.regions) if isinstance(expected, str) else parsed) == expected


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("awskms:", "begin"),
        ("awskms:alias/x", "begin"),
        ("awskms://localhost:4566/alias/x", "begin"),
        ("awskms:///?", "empty query"),
        ("awskms:///?region=us-east-1&region=us-west-2", "twice"),
        ("awskms:///?region=us-east-1,us-east-1", "twice"),
        ("awskms:///?region=", "not an AWS Region"),
        ("awskms:///?region=us-east-1.evil.example", "not an AWS Region"),
        ("awskms:///?region=us-east-1%2C", "not an AWS Region"),
        ("awskms:///?Region=us-east-1", "isn't a parameter"),
        ("awskms:///?region", "isn't a parameter"),
        ("awskms:///?pin-value=1234", "isn't a parameter"),
        ("awskms:///?profile=", "empty profile"),
        ("awskms:///?profile=%zz", "bad character"),
        ("awskms:///?profile=%ff", "UTF-8"),
        ("awskms:///?profile=a%0Ab", "control character"),
        ("awskms:///?profile=a b", "bad character"),
        ("awskms:///?attempts=0", "attempts"),
        ("awskms:///?attempts=11", "attempts"),
        ("awskms:///?attempts=-1", "attempts"),
        ("awskms:///?budget-ms=99", "budget-ms"),
        (f"awskms:///?api-key-id={UUID}", "names no key"),
        (f"awskms:///?public-key-sha256={'ab' * 32}", "names no key"),
        ("awskms:///alias/hsm-keys/prod?public-key-sha256=ab", "64 hex digits"),
        ("awskms:///?budget-ms=1e3", "budget-ms"),
        ("awskms:///?imported=yes", "imported"),
        ("awskms:///prod?region=us-east-1", "names no key"),
        ("awskms:///alias/aws/s3?region=us-east-1", "names no key"),
        ("awskms:///alias/?region=us-east-1", "names no key"),
        (f"awskms:///{UUID.upper()}?region=us-east-1", "names no key"),
        ("awskms:///arn:aws:s3:us-east-1:111122223333:key/x", "names no key"),
        (f"awskms:///arn:aws:kms:us-east-1:1111:key/{UUID}", "names no key"),
        (f"awskms:///arn:aws:kms:us-east-1:111122223333:key/{UUID}?region=us-west-2", "other Regions"),
        (f"awskms:///arn:aws:kms:us-east-1:111122223333:key/{UUID}?region=us-east-1,us-west-2", "several Regions"),
        ("awskms:///" + "a" * 3000, "longer"),
        ("awskms:///alias/x#fragment", "bad character"),
    ],
)
def test_what_is_no_uri_is_refused_with_its_reason(text: str, word: str) -> None:
    with pytest.raises(UsageError, match=word) as caught:
        AwsKmsUri.parse(text)
    assert caught.value.hint


def test_a_multi_region_key_reads_the_same_in_another_region() -> None:
    arn = f"arn:aws:kms:us-east-1:111122223333:key/{MRK}"
    assert in_region(arn, "us-west-2") == f"arn:aws:kms:us-west-2:111122223333:key/{MRK}"
    assert in_region("alias/hsm-keys/prod", "us-west-2") == "alias/hsm-keys/prod"
    alias = "arn:aws:kms:us-east-1:111122223333:alias/a/b"
    assert in_region(alias, "us-west-2") == "arn:aws:kms:us-west-2:111122223333:alias/a/b"
    assert (region_of(arn), region_of(MRK)) == ("us-east-1", None)


@pytest.mark.parametrize("text", ["prod", "alias", "arn:aws:kms", "", "alias/aws/ebs", "mrk-1234"])
def test_a_plain_name_is_no_reference(text: str) -> None:
    assert not is_key_reference(text)

"""The Rust SDK under Element X as the tests' client."""

"""What the tests over HTTP share: a server to talk to, a client that validates, and the specification's schemas."""

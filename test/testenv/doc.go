// Package testenv starts the real parts that integration tests run against: a
// Vault, and a Kubernetes API server with its etcd. Nothing is a fake, so a
// test that passes here is evidence about the product.
//
// The programs are built on demand (see package programs) and listen on free
// ports of the loopback interface. Each instance keeps its data and its log in a
// temporary directory of its own, which its Stop removes.
//
// # In tests
//
// [NewVault] and [NewAPIServer] start a fresh instance that ends with the test.
// An API server takes seconds to come up; tests that do not disturb each other share
// one with [SharedVault] and [SharedAPIServer], in a package whose TestMain is
//
//	func TestMain(m *testing.M) { testenv.Main(m) }
//
// When a test fails, the last lines of the logs of the instances that it used are
// part of its output.
//
// # Logins
//
// A pod authenticates with a service-account token. Against an API server,
// [APIServer.ServiceAccountToken] asks for a real one, and
// [Vault.TrustAPIServer] lets Vault's kubernetes method review it. Where there is
// no API server a [JWTIssuer] signs tokens of the same shape, which Vault's jwt
// method checks by itself after [Vault.TrustIssuer]. [Vault.AllowLogin] makes the
// roles for both.
//
// # Cleanup
//
// No child outlives this process, even if it is killed: Vault ends when its
// standard input does, and the kernel kills the others on Linux.
package testenv

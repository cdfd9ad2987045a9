// Package testenv starts the real servers that integration tests use: a Vault, and a
// Kubernetes API server with its etcd.
//
// The programs are built on demand (see package programs) and listen on free
// ports of the loopback interface. Each instance has its data and its log in its own
// temporary directory, which its Stop removes.
//
// # In tests
//
// [NewVault] and [NewAPIServer] start a fresh instance that ends with the test. An API server takes seconds to start;
// tests that do not affect each other share one with [SharedVault] and [SharedAPIServer], in a package whose TestMain
// is
//
//	func TestMain(m *testing.M) { testenv.Main(m) }
//
// [NewVaultCluster] starts a cluster of three Vaults, whose members can be killed.
//
// The output of a failed test includes the last lines of the logs of its instances.
//
// # Logins
//
// A pod authenticates with a service-account token. Against an API server,
// [APIServer.ServiceAccountToken] requests a real one, and
// [Vault.TrustAPIServer] lets Vault's kubernetes method review it. Without an API
// server, a [JWTIssuer] signs tokens with the same claims, which Vault's jwt
// method verifies itself after [Vault.TrustIssuer]. [Vault.AllowLogin] creates the
// roles for both.
//
// # Cleanup
//
// No child outlives this process, even if it is killed: Vault ends when its
// standard input does, and the kernel kills the others on Linux.
package testenv

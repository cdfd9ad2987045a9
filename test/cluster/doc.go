// Package cluster tests the programs with real clusters of Vault and OpenBao: three servers with integrated storage
// (raft), whose leader is killed in the middle of the work.
package cluster

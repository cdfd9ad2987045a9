//go:build race

package main

// slowdown is how much longer the test process takes with the race detector. It is
// the client and the API server of TestHostileInputs, on the processors that the
// program itself needs.
const slowdown = 5

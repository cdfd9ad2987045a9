//go:build race

package main

// slowdown is the factor by which the race detector slows down the test process, which
// runs the client and the API server of TestHostileInputs on the same processors as the
// program.
const slowdown = 5

//go:build race

package main

const (
	// slowdown is the factor by which the race detector slows down the test process, which
	// runs the client and the API server of TestHostileInputs on the same processors as the
	// program.
	slowdown = 5
	// atOnce is the number of volumes of one namespace that mount a hostile input together. The program under test is
	// built without the race detector, so here it would only slow down the test. Continuous integration also runs the
	// test without it (make test-fips).
	atOnce = 10
)

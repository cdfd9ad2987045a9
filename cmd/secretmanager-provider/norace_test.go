//go:build !race

package main

const (
	// slowdown is the factor by which the race detector slows down the test process.
	slowdown = 1
	// atOnce is the number of volumes of one namespace that mount a hostile input together.
	atOnce = 100
)

//go:build !race

package main

// slowdown is the factor by which the race detector slows down the test process.
const slowdown = 1

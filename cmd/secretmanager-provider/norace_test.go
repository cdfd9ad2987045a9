//go:build !race

package main

// slowdown is how much longer the test process takes with the race detector.
const slowdown = 1

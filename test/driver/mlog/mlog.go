// Package mlog replaces monis.app/mlog, the logging façade of the Secrets Store CSI driver, which the Go module proxy
// does not have. It implements the functions that the driver uses, with klog.
//
// It keeps klog's level and format, because people read the driver's messages to diagnose a failed test.
package mlog

import (
	"context"

	"k8s.io/klog/v2"
)

// Format is how log lines are written.
type Format string

// Formats of the log.
const (
	FormatText Format = "text"
	FormatJSON Format = "json"
)

// Setup returns the function to call before the program ends.
func Setup() func() { return klog.Flush }

// ValidateAndSetKlogLevelAndFormatGlobally accepts every level and format.
func ValidateAndSetKlogLevelAndFormatGlobally(context.Context, klog.Level, Format) error { return nil }

// Fatal logs err and ends the program.
func Fatal(err error) {
	klog.ErrorS(err, "fatal")
	klog.FlushAndExit(klog.ExitFlushTimeout, 1)
}

// Error logs err.
func Error(msg string, err error, keysAndValues ...any) {
	klog.ErrorSDepth(1, err, msg, keysAndValues...)
}

// Package mlog stands in for monis.app/mlog, the logging façade of the Secrets
// Store CSI driver, which the Go module proxy does not have. It holds the few
// names that the driver uses, on top of klog.
//
// The log level and format are left as klog has them: the driver's messages are
// read by people who look into a failed test, in one format.
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

// Setup returns what to call before the program ends.
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

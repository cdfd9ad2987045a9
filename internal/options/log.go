package options

import (
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Log has the options of the log.
type Log struct{ Level, Format string }

// levels are the values of --log-level. Below debug, client-go would log the responses of the API server.
var levels = []string{"debug", "info", "warn", "error"}

// AddFlags adds the flags.
func (l *Log) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&l.Level, "log-level", "info", "lowest `level` to log: debug, info, warn or error")
	f.StringVar(&l.Format, "log-format", "text", "`format` of the log: text or json")
}

// Validate returns all problems of the options.
func (l *Log) Validate() (errs []error) {
	if !slices.Contains(levels, l.Level) {
		errs = append(errs, Invalid("log-level", "invalid value %q: must be %s", l.Level, strings.Join(levels, ", ")))
	}
	if l.Format != "text" && l.Format != "json" {
		errs = append(errs, Invalid("log-format", "invalid value %q: must be text or json", l.Format))
	}
	return errs
}

// Logger returns the logger. The options must be valid.
func (l *Log) Logger(w io.Writer) *slog.Logger {
	var o slog.HandlerOptions
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err == nil {
		o.Level = level
	}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, &o))
	}
	return slog.New(slog.NewTextHandler(w, &o))
}

package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/pflag"
)

// logging is what the flags say of the log.
type logging struct {
	level     string // as given
	logLevel  slog.Level
	logFormat string
}

func (l *logging) flags(f *pflag.FlagSet) {
	f.StringVar(&l.level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&l.logFormat, "log-format", "text", "text or json")
}

// check reads the level, and reports everything that is wrong.
func (l *logging) check() error {
	var errs []error
	if err := l.logLevel.UnmarshalText([]byte(l.level)); err != nil {
		errs = append(errs, fmt.Errorf("--log-level %q is none of debug, info, warn, error", l.level))
	}
	if l.logFormat != "text" && l.logFormat != "json" {
		errs = append(errs, fmt.Errorf("--log-format %q is neither text nor json", l.logFormat))
	}
	return errors.Join(errs...)
}

// logger returns the log, once the flags have been checked.
func (l *logging) logger(w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: l.logLevel}
	if l.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

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
	level, format string
}

func (l *logging) flags(f *pflag.FlagSet) {
	f.StringVar(&l.level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&l.format, "log-format", "text", "text or json")
}

func (l *logging) check() error {
	var errs []error
	if err := new(slog.Level).UnmarshalText([]byte(l.level)); err != nil {
		errs = append(errs, fmt.Errorf("--log-level %q is none of debug, info, warn, error", l.level))
	}
	if l.format != "text" && l.format != "json" {
		errs = append(errs, fmt.Errorf("--log-format %q is neither text nor json", l.format))
	}
	return errors.Join(errs...)
}

// logger returns the log; the flags have been checked.
func (l *logging) logger(w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{}
	var level slog.Level
	if level.UnmarshalText([]byte(l.level)) == nil {
		opts.Level = level
	}
	if l.format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

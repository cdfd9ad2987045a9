package provider

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"
)

// Where the answer of a mount came from, for the log.
const (
	sourceVault = "vault"
	sourceCache = "cache"
)

// mountLog is what one mount's line in the log says. Its level is debug for a
// republish that changes nothing: there is one for each volume every minute.
type mountLog struct {
	began      time.Time
	took       time.Duration
	request    *request
	ciphertext string // where it came from
	source     string // where the answer came from, or would have
	entries    int
}

// codeOf returns the gRPC code of what a mount came to.
func codeOf(resp *v1alpha1.MountResponse, err error) codes.Code {
	if resp == nil && err == nil {
		return codes.Internal // of a panic, once it is caught
	}
	return status.Code(err)
}

func (l *mountLog) write(ctx context.Context, log *slog.Logger, resp *v1alpha1.MountResponse, err error) {
	level := slog.LevelInfo
	switch {
	case err != nil || resp == nil:
		level = slog.LevelError
	case l.source == sourceCache:
		level = slog.LevelDebug
	}
	if !log.Enabled(ctx, level) {
		return
	}
	var attrs []slog.Attr
	add := func(name, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(name, clip(value, 253)))
		}
	}
	if r := l.request; r != nil {
		add("namespace", r.pod.namespace)
		add("pod", r.pod.name)
		add("class", r.class)
		add("secret", r.secret)
	}
	add("ciphertext", l.ciphertext)
	add("source", l.source)
	attrs = append(attrs, slog.Int("entries", l.entries), slog.Duration("duration", l.took))
	code := slog.String("code", codeOf(resp, err).String())
	switch {
	case err != nil:
		attrs = append(attrs, code, slog.String("error", status.Convert(err).Message()))
		log.LogAttrs(ctx, level, "mount failed", attrs...)
	case resp == nil:
		attrs = append(attrs, code, slog.String("error", "panic"))
		log.LogAttrs(ctx, level, "mount failed", attrs...)
	default:
		log.LogAttrs(ctx, level, "mounted", append(attrs, slog.Int("files", len(resp.Files)))...)
	}
}

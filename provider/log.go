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
	id         string // of the mount: in the log, the audit record, and the headers to Vault
	node       string
	began      time.Time
	took       time.Duration
	request    *request
	parsed     bool   // whether the parameters of the request are valid
	ciphertext string // where it came from
	source     string // where the answer came from, or would have
	entries    int

	decrypting []auditEntry // what Vault was to decrypt; nil if the mount did not get there
	kept       string       // record of the mount whose response was given again, for the first time
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
	attrs := []slog.Attr{slog.String("request", l.id)}
	add := func(name, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(name, clip(value, 253)))
		}
	}
	rec := l.record(codeOf(resp, err))
	add("namespace", rec.Namespace)
	add("pod", rec.Pod)
	add("pod_uid", rec.PodUID)
	add("service_account", rec.ServiceAccount)
	add("class", rec.Class)
	add("secret", rec.Secret)
	add("role", rec.Role)
	add("key", rec.Key)
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

package provider

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc/status"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// Sources of a response, for the log.
const (
	sourceVault = "vault"
	sourceCache = "cache"
)

// mountLog collects what the log says about a mount. Its level is debug for a cached response, of which there is one
// for each volume every minute.
type mountLog struct {
	id         string // request ID: in the log, the audit record, and the headers to Vault
	node       string
	started    time.Time
	took       time.Duration
	request    *request
	parsed     bool   // the parameters of the request are valid
	ciphertext string // source of the ciphertext
	source     string // source of the response, even if the mount fails
	entries    int

	decrypting   []auditEntry // entries to decrypt; nil if the mount failed before
	cachedRecord string       // audit record of the cached response; see [cachedResponse]
}

// reasonOK is the reason of a mount that succeeded.
const reasonOK = "OK"

// reasonOf returns the reason of a failed mount, or nil. After a panic, which leaves neither a response nor an error,
// it is Internal.
func reasonOf(resp *v1alpha1.MountResponse, err error) *failure.Reason {
	if resp != nil && err == nil {
		return nil
	}
	return failure.Final(err).Reason
}

// nameOf returns the name of a reason, or reasonOK.
func nameOf(reason *failure.Reason) string {
	if reason == nil {
		return reasonOK
	}
	return reason.String()
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
			attrs = append(attrs, slog.String(name, display.Clip(value, 253)))
		}
	}
	reason := reasonOf(resp, err)
	rec := l.record(reason)
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
	if reason == nil {
		log.LogAttrs(ctx, level, "mounted", append(attrs, slog.Int("files", len(resp.Files)))...)
		return
	}
	text := "panic"
	if err != nil {
		text = status.Convert(err).Message()
	}
	attrs = append(attrs, slog.String("reason", reason.String()), slog.String("code", reason.Code().String()),
		slog.String("error", text))
	log.LogAttrs(ctx, level, "mount failed", attrs...)
}

package rotator

import (
	"context"
	"errors"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/retry"
	"github.com/secretmanager-io/secretmanager/transit"
)

// lagFor bounds how long a run waits, in all, for servers of Vault that lag behind. Standbys of OpenBao since
// 2.5 and of Vault Enterprise answer reads, and do not know yet what the active server did. Tests change it.
var lagFor = 30 * time.Second

var errLagging = errors.New("the server has an older version of the key")

// readAtLeast reads a key until it has a version that it had before. If that takes too long, the key was
// restored from a backup, and the run waits for no other key.
func (r *run) readAtLeast(ctx context.Context, key ciphertext.Key, version int) (transit.KeyInfo, error) {
	info, err := r.readKey(ctx, key)
	if err != nil || info.Latest >= version || r.lagFor <= 0 {
		return info, err
	}
	r.Log.Info("waiting for a server of Vault that lags behind", "key", key.String(), "version", info.Latest, "expected",
		version)
	began := time.Now()
	_ = retry.Do(ctx, r.lagFor, func() *retry.Failure {
		if info, err = r.readKey(ctx, key); err != nil {
			return &retry.Failure{Err: err, Final: true}
		}
		if info.Latest < version {
			return &retry.Failure{Err: errLagging}
		}
		return nil
	})
	r.lagFor -= time.Since(began)
	if err == nil && info.Latest < version {
		r.lagFor = 0
	}
	return info, err
}

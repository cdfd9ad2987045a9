package mount

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/internal/cli"
)

// TestReadManifest: a file is read to its end, whatever its length.
func TestReadManifest(t *testing.T) {
	const head, tail = `{"kind": "Secret", "data": {"a": "`, `"}}`
	for _, size := range []int{4095, 4096, 4097, 8192, 65536} {
		text := head + strings.Repeat("x", size-len(head)-len(tail)) + tail
		var secret struct{ Data map[string]string }
		p := &Options{Factory: &cli.Factory{}}
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := p.readManifest(path, "Secret", &secret); err != nil || len(secret.Data["a"]) != size-len(head)-len(tail) {
			t.Errorf("%d bytes: %d of the value, %v", size, len(secret.Data["a"]), err)
		}
	}
}

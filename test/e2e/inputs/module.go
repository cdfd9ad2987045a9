package inputs

import (
	"context"
	"fmt"

	"github.com/secretmanager-io/secretmanager/test/e2e/step"
)

// ModuleDir returns the directory in which Go keeps the sources of the module, in the version that the go.mod in
// mainDir requires. It downloads them if they are missing. The caller must not change them.
func ModuleDir(ctx context.Context, mainDir, module string) (string, error) {
	var dir string
	for _, args := range [][]string{{"mod", "download", module}, {"list", "-m", "-f", "{{.Dir}}", module}} {
		cmd := step.Command(ctx, "go", args...)
		cmd.Dir = mainDir
		var err error
		if dir, err = step.Run(cmd); err != nil {
			return "", fmt.Errorf("getting the sources of %s: %w", module, err)
		}
	}
	return dir, nil
}

package main

import (
	"errors"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/cli/root"
	"github.com/secretmanager-io/secretmanager/test/cliscript"
)

// examples VERB CODE... runs the examples in the help of a verb in the namespace demo. Each must exit
// with one of the codes. It skips examples that run until they are interrupted.
func examples(w *cliscript.Scripts, ts *testscript.TestScript, neg bool, args []string) {
	cliscript.Need(ts, neg, len(args) > 1, "examples VERB CODE...")
	_, err := w.Kube.CoreV1().Namespaces().Create(w.T.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "demo"}}, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		ts.Check(err)
	}
	p := cli.NewFactory(cli.Environment{ProgramName: "secretmanager"})
	verb, _, err := root.NewCommand(p).Find(args[:1])
	ts.Check(err)
	ran := 0
	for line := range strings.SplitSeq(strings.ReplaceAll(verb.Example, "\\\n", " "), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "kubectl ") ||
			strings.HasSuffix(line, " -w") {
			continue
		}
		code := 0
		if err := ts.Exec("sh", "-c", line); err != nil {
			failed := (*exec.ExitError)(nil)
			if !errors.As(err, &failed) {
				ts.Fatalf("%s: %v", line, err)
			}
			code = failed.ExitCode()
		}
		if !slices.Contains(args[1:], strconv.Itoa(code)) {
			ts.Fatalf("exit code %d of: %s", code, line)
		}
		ran++
	}
	if ran == 0 {
		ts.Fatalf("%s shows nothing that can be run", args[0])
	}
}

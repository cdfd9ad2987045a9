package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/transit"
)

func okf(format string, args ...any) finding {
	return finding{state: OK, detail: fmt.Sprintf(format, args...)}
}

func brokenf(format string, args ...any) finding {
	return finding{state: Broken, detail: fmt.Sprintf(format, args...)}
}

func unknownf(format string, args ...any) finding {
	return finding{state: Unknown, detail: fmt.Sprintf(format, args...)}
}

// requestFailed returns the finding for a request to the cluster that failed. The right is in the
// syntax of "kubectl auth can-i", such as "get csidrivers".
func requestFailed(right string, err error) finding {
	switch {
	case apierrors.IsForbidden(err):
		return unknownf("you may not %s", right).withAdvice("ask someone with that right: kubectl auth can-i " + right)
	case errors.Is(err, context.DeadlineExceeded):
		return unknownf("%s: the API server did not respond in time", right)
	}
	return unknownf("%s: %s", right, oneLine(err))
}

// oneLine returns the message of an error on one line.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// vaultMessage returns the message of an error of Vault without the request, which the finding
// describes.
func vaultMessage(err error) string {
	var e *transit.Error
	if !errors.As(err, &e) {
		return oneLine(err)
	}
	short := *e
	short.Doing, short.Address, short.Tries = "", "", 0
	return strings.TrimPrefix(short.Error(), " at : ")
}

// An operation is one of a JSON Patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// jsonPatch formats a patch. Its values are strings, booleans and token requests, which JSON can represent.
func jsonPatch(patch []operation) string {
	text, err := json.Marshal(patch)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// command joins words to a command line, quoted for a shell.
func command(words ...string) string { return display.ShellWords(words...) }

package doctor

import (
	"context"
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

// command joins words to a command line, quoted for a shell.
func command(words ...string) string { return display.ShellWords(words...) }

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

// unseen is the finding for a request to the cluster that did not tell. The right
// is what "kubectl auth can-i" takes, such as "get csidrivers".
func unseen(right string, err error) finding {
	switch {
	case apierrors.IsForbidden(err):
		return unknownf("you may not %s", right).withAdvice("somebody who may: kubectl auth can-i " + right)
	case errors.Is(err, context.DeadlineExceeded):
		return unknownf("%s: the API server did not answer in time", right)
	}
	return unknownf("%s: %s", right, oneLine(err))
}

// oneLine is an error as a detail.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// vaultWords are Vault's, without what the finding says already.
func vaultWords(err error) string {
	var e *transit.Error
	if !errors.As(err, &e) {
		return oneLine(err)
	}
	short := *e
	short.Doing, short.Address, short.Tries = "", "", 0
	return strings.TrimPrefix(short.Error(), " at : ")
}

// command joins words to a command line for a shell.
func command(words ...string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = display.ShellWord(word)
	}
	return strings.Join(quoted, " ")
}

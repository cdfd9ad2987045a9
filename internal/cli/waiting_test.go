package cli

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secretmanager-io/secretmanager/test/async"
)

// TestWaitLine verifies that the line appears after two seconds, counts, and is erased.
func TestWaitLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out async.Buffer
		p := &Factory{line: newWaitLine(&out)}
		done := p.Wait("the Lease")
		time.Sleep(waitShownAfter - waitPoll/2)
		synctest.Wait()
		if out.String() != "" {
			t.Errorf("it was shown at once: %q", out.String())
		}
		time.Sleep(2*time.Second + waitPoll)
		synctest.Wait()
		shown := out.String()
		if !strings.Contains(shown, eraseLine+"waiting for the Lease (2s)") || !strings.HasSuffix(shown, "(4s)") {
			t.Errorf("got %q", shown)
		}
		done()
		if got := out.String(); got != shown+eraseLine {
			t.Errorf("it was not erased: %q", got)
		}
		time.Sleep(time.Minute)
		p.Close()
		synctest.Wait()
		if got := out.String(); got != shown+eraseLine {
			t.Errorf("more was written: %q", got)
		}
	})
}

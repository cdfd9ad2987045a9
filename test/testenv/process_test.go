package testenv

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// starter is the variable that enables TestStarter.
const starter = "TESTENV_STARTER"

// TestStarter runs in a child process of TestChildrenDieWithThisProcess. It starts one of
// each server, prints their process ids, and waits until it is killed.
func TestStarter(t *testing.T) {
	if os.Getenv(starter) == "" {
		t.Skip("runs only as a child of TestChildrenDieWithThisProcess")
	}
	v, err := StartVault(t.Context(), VaultOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := StartAPIServer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("children:", v.process.cmd.Process.Pid, s.etcd.cmd.Process.Pid, s.server.cmd.Process.Pid)
	select {}
}

func TestChildrenDieWithThisProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux kills children together with their parent")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestStarter$")
	cmd.Env = append(os.Environ(), starter+"=1", "TMPDIR="+t.TempDir(), "GOCOVERDIR="+t.TempDir())
	cmd.Stderr = os.Stderr
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var vault, etcd, server int
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		if _, err := fmt.Sscanf(lines.Text(), "children: %d %d %d", &vault, &etcd, &server); err == nil {
			break
		}
		t.Log(lines.Text())
	}
	if server == 0 {
		t.Fatalf("the process that starts children said nothing of them: %v", errors.Join(lines.Err(), cmd.Wait()))
	}

	for name, pid := range map[string]int{"vault": vault, "etcd": etcd, "kube-apiserver": server} {
		if hasEnded(pid) {
			t.Errorf("%s does not run", name)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // "signal: killed"
	deadline := time.Now().Add(15 * time.Second)
	for name, pid := range map[string]int{"vault": vault, "etcd": etcd, "kube-apiserver": server} {
		for !hasEnded(pid) {
			if time.Now().After(deadline) {
				t.Fatalf("%s still runs after its parent was killed", name)
			}
			time.Sleep(20 * time.Millisecond) // no signal arrives when a grandchild ends
		}
	}
}

// hasEnded reports whether the process has ended. A zombie has ended.
func hasEnded(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, state, found := strings.Cut(string(stat), ") ")
	return found && strings.HasPrefix(state, "Z")
}

func TestFailedStartShowsTheLog(t *testing.T) {
	_, err := StartVault(t.Context(), VaultOptions{Mounts: []string{"mounts/no-such-engine"}})
	if err == nil || !strings.Contains(err.Error(), "mounting mounts/no-such-engine") {
		t.Errorf("got %v, want an error with Vault's reason", err)
	}
}

func TestStopTwice(t *testing.T) {
	v, err := StartVault(t.Context(), VaultOptions{})
	if err != nil {
		t.Fatal(err)
	}
	v.Stop()
	v.Stop()
	if v.process.running() {
		t.Error("it runs after Stop")
	}
	if _, err := os.Stat(v.dir); !os.IsNotExist(err) {
		t.Errorf("its directory is still there: %v", err)
	}
	if err := v.Restart(t.Context()); err == nil {
		t.Error("a stopped Vault was restarted")
	}
}

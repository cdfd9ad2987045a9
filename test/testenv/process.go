package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

const (
	// tailBytes of a log are read, and tailLines of them shown, after a failure.
	tailBytes = 32 << 10
	tailLines = 40
	// stopTimeout is the time that a program has to end before it is killed.
	stopTimeout = 10 * time.Second
)

// A process is a running child.
type process struct {
	name    string
	cmd     *exec.Cmd
	stdin   io.Closer     // nil unless the program ends with its standard input
	logFile string        // its standard error, and its standard output unless that is read
	exited  chan struct{} // closed when the child has ended and its log is complete
	err     error         // how it ended; to be read after exited is closed
}

// startProcess runs the program at path. Its log is appended to NAME.log in dir. If stdout
// is nil, standard output is appended too.
//
// If endsWithStdin is set, the child gets a pipe as its standard input, and must end when
// this process closes it or dies. Otherwise the kernel kills it.
func startProcess(dir, name, path string, arguments []string, stdout io.Writer, endsWithStdin bool) (*process, error) {
	p := &process{
		name:    name,
		cmd:     exec.Command(path, arguments...),
		logFile: filepath.Join(dir, name+".log"),
		exited:  make(chan struct{}),
	}
	log, err := os.OpenFile(p.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer log.Close() // the child has its own copy
	p.cmd.Dir = dir
	// Do not pass on settings for the process under test, such as fips140=only.
	p.cmd.Env = append(os.Environ(), "GODEBUG=")
	p.cmd.Stderr = log
	p.cmd.Stdout = log
	if stdout != nil {
		p.cmd.Stdout = stdout
	}
	p.cmd.SysProcAttr = childAttributes(!endsWithStdin)
	if endsWithStdin {
		if p.stdin, err = p.cmd.StdinPipe(); err != nil {
			return nil, fmt.Errorf("starting %s: %w", name, err)
		}
	}
	if err := startOnLastingThread(p.cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// lastingThread runs functions on one thread that exists as long as this process. The
// kernel kills a child when the thread that forked it ends, not when the process ends, and
// Go may end other threads earlier.
var lastingThread = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func startOnLastingThread(cmd *exec.Cmd) error {
	result := make(chan error, 1)
	lastingThread() <- func() { result <- cmd.Start() }
	return <-result
}

// running reports whether the child has not ended yet.
func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// stop ends the child and waits for it: gracefully if it ends with its standard
// input, else by a kill. A kill is harmless: the data of etcd is deleted anyway, and
// an API server keeps its data in etcd.
func (p *process) stop() {
	if p.stdin != nil {
		p.stdin.Close()
		timeout := time.NewTimer(stopTimeout)
		defer timeout.Stop()
		select {
		case <-p.exited:
			return
		case <-timeout.C:
		}
	}
	p.kill()
}

// kill kills the child and waits for it.
func (p *process) kill() {
	// It may have ended meanwhile.
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// failure returns the error for a child that ended unexpectedly.
func (p *process) failure() error {
	err := p.err
	if err == nil {
		err = errors.New("exit status 0")
	}
	return fmt.Errorf("%s ended while it was needed: %w\n%s", p.name, err, p.tail())
}

// tail returns the last lines of the child's log, below a heading.
func (p *process) tail() string {
	text, err := readTail(p.logFile)
	if err != nil {
		return fmt.Sprintf("(its log cannot be read: %v)", err)
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > tailLines {
		lines = lines[len(lines)-tailLines:]
	}
	return fmt.Sprintf("--- the last lines of the log of %s:\n%s", p.name, strings.Join(lines, "\n"))
}

func readTail(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	if _, err := file.Seek(max(0, info.Size()-tailBytes), io.SeekStart); err != nil {
		return "", err
	}
	text, err := io.ReadAll(file)
	return string(text), err
}

// A firstLine takes what is written to it, sends the first line to the channel
// and drops the rest.
type firstLine struct {
	line   chan string
	buffer bytes.Buffer
	sent   bool
}

func newFirstLine() *firstLine {
	return &firstLine{line: make(chan string, 1)}
}

func (f *firstLine) Write(text []byte) (int, error) {
	if f.sent {
		return len(text), nil
	}
	f.buffer.Write(text)
	if line, _, found := strings.Cut(f.buffer.String(), "\n"); found {
		f.sent = true
		f.line <- line
	}
	return len(text), nil
}

module github.com/secretmanager-io/secretmanager/test/pause

go 1.26.0

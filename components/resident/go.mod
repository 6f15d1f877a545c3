module skiff.local/resident

go 1.26.0

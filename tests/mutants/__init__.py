"""Does a test fail when the code that keeps a promise is changed?"""
